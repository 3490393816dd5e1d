package route

// ring holds the ready nodes of a kind, with the hashes of their names side by side. A nil ring is
// empty.
type ring struct {
	nodes  []Node
	hashes []uint64
}

func (r *ring) add(node Node) {
	r.nodes = append(r.nodes, node)
	r.hashes = append(r.hashes, hashOf(node.ID))
}

func (r *ring) all() []Node {
	if r == nil {
		return nil
	}
	return r.nodes
}

// best returns the node with the greatest weight for the tenant's hash among the nodes that refuse does
// not exclude: rendezvous hashing, or highest random weight (Thaler and Ravishankar, "Using
// name-based mappings to increase hit rates", 1998). Both names are hashed beforehand, so that a
// node costs a few multiplications.
func (r *ring) best(tenant uint64, refuse func(Node) bool) (Node, bool) {
	if r == nil {
		return Node{}, false
	}
	found, most := -1, uint64(0)
	for i, node := range r.hashes {
		weight := mix(tenant ^ node)
		if found >= 0 && weight <= most || refuse != nil && refuse(r.nodes[i]) {
			continue
		}
		found, most = i, weight
	}
	if found < 0 {
		return Node{}, false
	}
	return r.nodes[found], true
}

// hashOf is FNV-1a with a finalizer. It must be equal in every process, which excludes maphash.
func hashOf(name string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	return mix(h)
}

// mix is MurmurHash3's finalizer.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
