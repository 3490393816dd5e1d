package backbone

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
)

// Placement says which node serves a tenant's calls of a kind. It stands in the
// bucket [BucketPlacement] under [PlacementKey]. A tenant without one is served by
// all nodes of the kind.
type Placement struct {
	// Node is the id of the one that calls go to; "": as if it were not placed.
	Node string `json:"node"`
	// Also are nodes that keep up with the tenant beside it: where it moves to, or
	// comes from. [EveryNode] is all of the kind.
	Also []string `json:"also,omitempty"`
	// Rebalance is the id of the move under way; nobody else may change the
	// placement meanwhile.
	Rebalance string `json:"rebalance,omitempty"`
}

// Serves reports whether the node keeps up with the tenant.
func (p Placement) Serves(node string) bool {
	return p.Node == node || p.Node == "" || slices.Contains(p.Also, node) || slices.Contains(p.Also, EveryNode)
}

// EveryNode stands for all nodes of a kind.
const EveryNode = "*"

// PlacementKey is the key of a tenant's placement.
func PlacementKey(kind string, tenant contextkit.TenantID) string {
	return kind + "." + tenant.String()
}

// ParsePlacementKey returns what [PlacementKey] was made of.
func ParsePlacementKey(key string) (kind string, tenant contextkit.TenantID, ok bool) {
	kind, name, _ := strings.Cut(key, ".")
	tenant, err := contextkit.ParseTenantID(name)
	return kind, tenant, err == nil && kind != ""
}

// Tenant is what is known of a tenant beside the configuration. It stands in the
// bucket [BucketTenants] under its name.
type Tenant struct {
	// Suspended says that the tenant's calls are refused; Reason why.
	Suspended bool   `json:"suspended,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Quota bounds the tenant's calls; nil: as all others.
	Quota *Quota `json:"quota,omitempty"`
}

// Quota bounds a tenant's calls at each gateway. 0: as all others.
type Quota struct {
	// Rate is the calls a second, on average, and Burst the calls at once above it.
	Rate  float64 `json:"rate,omitempty"`
	Burst int     `json:"burst,omitempty"`
	// Concurrent is the calls in flight, and Streams the streams of answers.
	Concurrent int `json:"concurrent,omitempty"`
	Streams    int `json:"streams,omitempty"`
}

// Document is a model document. It stands in the bucket [BucketModels] under
// [ModelKey].
type Document struct {
	// Text is the YAML.
	Text string `json:"text"`
	// Revision is the model's own name for what it says.
	Revision string `json:"revision"`
	// By is who applied it, and Note what for.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
}

// ModelKey is the key of the platform's model.
const ModelKey = "current"
