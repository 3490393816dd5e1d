package route

import (
	"maps"

	"github.com/headgate/headgate/contextkit"
)

// shards is how many parts the placements lie in: a change copies the parts that it
// touches, each a hundred placements of a hundred thousand.
const shards = 1024

// placements are an immutable map.
type placements struct {
	parts [shards]map[placementKey]placed
}

type placementKey struct {
	tenant contextkit.TenantID
	kind   string
}

type placed struct {
	node string
	only bool
}

func (p *placements) get(kind string, tenant contextkit.TenantID, hash uint64) (placed, bool) {
	found, ok := p.parts[hash%shards][placementKey{tenant, kind}]
	return found, ok
}

// with returns the placements with some changed; those without a node are taken away.
func (p *placements) with(changed []Placement) *placements {
	next := &placements{parts: p.parts}
	var own [shards]bool // parts that are this copy's
	for _, c := range changed {
		n := hashOf(c.Tenant.String()) % shards
		if !own[n] {
			own[n] = true
			if next.parts[n] = maps.Clone(next.parts[n]); next.parts[n] == nil {
				next.parts[n] = map[placementKey]placed{}
			}
		}
		part, key := next.parts[n], placementKey{c.Tenant, c.Kind}
		if c.Node == "" {
			delete(part, key)
		} else {
			part[key] = placed{c.Node, c.Only}
		}
	}
	return next
}
