package gateway

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// maxDescribed bounds the stored descriptions. Those of the nodes that started first are dropped.
const maxDescribed = 256

// description is a node's description of its services.
type description struct {
	node    string
	started time.Time
	set     []byte
}

// Describe adds the services of a node to the services that the gateway serves. set is a serialized
// google.protobuf.FileDescriptorSet, which replaces the node's previous one. If two nodes describe
// a service differently, as during an upgrade, the description of the node that started last is
// used. Other services are unaffected, and calls in flight keep the description that they began
// with. On an error nothing changes.
func (g *Gateway) Describe(node string, started time.Time, set []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.catalog.With(set); err != nil {
		return err
	}
	described := slices.DeleteFunc(slices.Clone(g.described), func(d description) bool { return d.node == node })
	described = append(described, description{node, started, set})
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
		if described = withoutOldest(described); len(described) == 0 {
			return err
		}
	}
}

// withoutOldest returns the descriptions without those equal to the oldest.
func withoutOldest(described []description) []description {
	oldest := described[len(described)-1].set // sorted by start, the newest first
	return slices.DeleteFunc(slices.Clone(described), func(d description) bool { return bytes.Equal(d.set, oldest) })
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
