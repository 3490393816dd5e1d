package fleet

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
)

// Placement names the node that serves a tenant's calls of a kind. It is stored in the bucket
// [streams.BucketPlacement] under [PlacementKey]. A tenant without one is served by all nodes of
// the kind.
type Placement struct {
	// Node is the id of the node that receives the calls; "": as without a placement.
	Node string `json:"node"`
	// Also are further nodes that serve the tenant: the target or the source of a move. [EveryNode]
	// stands for all nodes of the kind.
	Also []string `json:"also,omitempty"`
	// Move is the id of the move under way; only that move may change the
	// placement.
	Move string `json:"rebalance,omitempty"`
}

// Serves reports whether a node serves the tenant, or prepares to.
func (p Placement) Serves(node string) bool {
	return p.Node == node || p.Node == "" || slices.Contains(p.Also, node) || slices.Contains(p.Also, EveryNode)
}

// EveryNode stands for all nodes of a kind.
const EveryNode = "*"

// PlacementKey is the key of a tenant's placement.
func PlacementKey(kind contextkit.Kind, tenant contextkit.TenantID) string {
	return kind.String() + "." + tenant.String()
}

// ParsePlacementKey returns the parts of a [PlacementKey].
func ParsePlacementKey(key string) (kind contextkit.Kind, tenant contextkit.TenantID, ok bool) {
	first, rest, _ := strings.Cut(key, ".")
	kind, kindErr := contextkit.ParseKind(first)
	tenant, tenantErr := contextkit.ParseTenantID(rest)
	return kind, tenant, kindErr == nil && tenantErr == nil
}
