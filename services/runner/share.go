package runner

import (
	"hash/fnv"
	"slices"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/lease"
)

// candidate is a live runner that accepts work.
type candidate struct {
	node   string
	mine   bool
	serves func(contextkit.TenantID) bool
}

// candidates returns the runners that tenants may be assigned to.
func (s *Service) candidates() []candidate {
	members, _ := s.lease.Members()
	own := s.lease.ID()
	var out []candidate
	for _, m := range members {
		switch {
		case m.ID == own:
			out = append(out,
				candidate{node: m.Node, mine: true, serves: func(contextkit.TenantID) bool { return true }})
		case m.Taking && m.Node != s.node:
			out = append(out, candidate{node: m.Node, serves: s.served(m)})
		}
	}
	return out
}

// served returns a function that reports which tenants another runner announces to serve.
func (s *Service) served(m lease.Member) func(contextkit.TenantID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenants := s.announced[m.Node]
	return func(tenant contextkit.TenantID) bool {
		_, found := slices.BinarySearch(tenants, tenant.String())
		return found
	}
}

// isMine reports whether a tenant that this runner serves is assigned to it: among the runners that serve the tenant,
// to the one with the highest hash (rendezvous hashing, Thaler and Ravishankar 1998), so that a runner that joins or
// leaves moves only its own share.
func (s *Service) isMine(tenant contextkit.TenantID, candidates []candidate) bool {
	mine, most := false, uint64(0)
	for _, c := range candidates {
		if !c.serves(tenant) {
			continue
		}
		if weight := rendezvous(c.node, tenant); weight >= most {
			mine, most = c.mine, weight
		}
	}
	return mine
}

// rendezvous returns a runner's weight for a tenant.
func rendezvous(node string, tenant contextkit.TenantID) uint64 {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(node + "\x00" + tenant.String())) // cannot fail
	x := hash.Sum64()                                          // FNV's high bits mix badly: finish as MurmurHash3 does
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
