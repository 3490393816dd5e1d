package gateway

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// maxDescribed bounds the nodes whose descriptions are kept; those of the ones that
// started first are forgotten.
const maxDescribed = 256

// description is what a node says of its services.
type description struct {
	node    string
	started time.Time
	set     []byte
}

// Describe serves the services of a node too: those in the serialized
// google.protobuf.FileDescriptorSet, which takes the place of what the node was
// described by before. Where nodes differ, the one that started last counts: while a
// service is upgraded there are nodes of two versions. Everything else stays, and calls in
// flight end as they began. On an error nothing changes.
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
		// Methods of two versions may have the same path: the older ones are left out.
		if described = withoutOldest(described); len(described) == 0 {
			return err
		}
	}
}

// withoutOldest returns the descriptions without those that say what the oldest says.
func withoutOldest(described []description) []description {
	oldest := described[len(described)-1].set // they are kept the newest first
	return slices.DeleteFunc(slices.Clone(described), func(d description) bool { return bytes.Equal(d.set, oldest) })
}

// serve puts what is described in force.
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
	table, rest, err := g.fill(next, catalog)
	if err != nil {
		return err
	}
	g.table.Store(table)
	g.rest.Store(rest)
	g.server.Adopt(next)
	return nil
}
