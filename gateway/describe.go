package gateway

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
)

// maxDescribed bounds the stored descriptions. Those of the nodes that started first are dropped.
const maxDescribed = 256

// description is a node's description of its services.
type description struct {
	node    string
	kind    contextkit.Kind
	started time.Time
	set     []byte
	content *policy.Description
}

// Describe adds the services of a node to the services that the gateway serves. set is a serialized
// google.protobuf.FileDescriptorSet, which replaces the node's previous one. If two nodes of a kind
// describe a service differently, as during an upgrade, the description of the node that started
// last is used. Other services are unaffected, and calls in flight keep the description that they
// began with. On an error nothing changes.
//
// A node describes services of its kind only. Errors: a policy has another upstream, a service
// belongs to the platform or is described by nodes of another kind, or its HTTP paths belong to
// other services.
func (g *Gateway) Describe(node string, kind contextkit.Kind, started time.Time, set []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	content, err := g.catalog.Describe(kind, set)
	if err != nil {
		return err
	}
	if _, err := g.catalog.With(set); err != nil {
		return err
	}
	described := slices.DeleteFunc(slices.Clone(g.described),
		func(d description) bool { return d.node == node && d.kind == kind })
	for _, d := range described {
		if err := content.Conflict(d.content); err != nil {
			return err
		}
	}
	described = append(described, description{node, kind, started, set, content})
	slices.SortFunc(described, func(a, b description) int {
		return cmp.Or(b.started.Compare(a.started), strings.Compare(a.node, b.node))
	})
	described = described[:min(len(described), maxDescribed)]
	for {
		err := g.serve(described)
		if err == nil {
			g.described = described
			return nil
		}
		// Two versions may have methods with the same path: drop the oldest version and retry.
		var found bool
		if described, found = withoutOldest(described, kind); !found {
			return err
		}
	}
}

// withoutOldest returns the descriptions without those equal to the oldest of a kind, and whether
// descriptions of the kind remain.
func withoutOldest(described []description, kind contextkit.Kind) (rest []description, found bool) {
	var oldest []byte // sorted by start, the newest first
	for _, d := range described {
		if d.kind == kind {
			oldest = d.set
		}
	}
	rest = slices.DeleteFunc(slices.Clone(described),
		func(d description) bool { return d.kind == kind && bytes.Equal(d.set, oldest) })
	return rest, slices.ContainsFunc(rest, func(d description) bool { return d.kind == kind })
}

// serve makes the gateway serve the described services.
func (g *Gateway) serve(described []description) error {
	var sets [][]byte
	for _, d := range described {
		if !slices.ContainsFunc(sets, func(set []byte) bool { return bytes.Equal(set, d.set) }) {
			sets = append(sets, d.set)
		}
	}
	catalog, err := g.catalog.With(sets...)
	if err != nil {
		return err
	}
	next := g.server.Renew()
	table, rest, err := g.register(next, catalog)
	if err != nil {
		return err
	}
	g.table.Store(table)
	g.rest.Store(rest)
	g.server.Adopt(next)
	return nil
}
