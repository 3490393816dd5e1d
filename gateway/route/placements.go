package route

import (
	"maps"

	"github.com/headgate/headgate/contextkit"
)

// shards is the number of parts of the placements: a change copies only the parts that it affects,
// with about a hundred placements each for a hundred thousand tenants.
const shards = 1024

// placements is an immutable map.
type placements struct {
	parts [shards]map[placementKey]placed
}

type placementKey struct {
	tenant contextkit.TenantID
	kind   contextkit.Kind
}

type placed struct {
	node string
	only bool
}

func (p *placements) get(kind contextkit.Kind, tenant contextkit.TenantID, hash uint64) (placed, bool) {
	found, ok := p.parts[hash%shards][placementKey{tenant, kind}]
	return found, ok
}

// with returns a copy with the changed placements; those without a node are removed.
func (p *placements) with(changed []Placement) *placements {
	next := &placements{parts: p.parts}
	var own [shards]bool // parts that this copy owns
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
