package projection

import (
	"fmt"
	"testing"
)

func TestMatchedKeys_AreBoundedPerFilterTenantAndNode(t *testing.T) {
	total := &tenantKeys{node: &nodeKeys{}}
	m := newMatchedKeys(total)
	for i := range maxMatched {
		m.add(fmt.Sprint(i))
		m.add(fmt.Sprint(i)) // repeated
	}
	if total.keys.Load() != maxMatched || total.node.keys.Load() != maxMatched || !m.has("0") || m.has("another") {
		t.Fatalf("%d keys of the tenant, %d of the node", total.keys.Load(), total.node.keys.Load())
	}
	m.add("one key over the limit")
	if total.keys.Load() != 0 || total.node.keys.Load() != 0 || total.node.exceeded.Load() != 1 || !m.has("another") {
		t.Errorf("over the limit: %d keys stored, and another key is excluded", total.keys.Load())
	}
	for name, bound := range map[string]struct{ tenant, node int64 }{
		"tenant": {maxAllMatched, maxAllMatched}, "node": {0, maxNodeMatched},
	} {
		total := &tenantKeys{node: &nodeKeys{}}
		total.keys.Store(bound.tenant)
		total.node.keys.Store(bound.node)
		other := newMatchedKeys(total)
		other.add("k")
		if total.keys.Load() != bound.tenant || total.node.keys.Load() != bound.node || !other.has("another") {
			t.Errorf("over the limit of the %s: %d keys stored", name, total.keys.Load())
		}
	}
}
