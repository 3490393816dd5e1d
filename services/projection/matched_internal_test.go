package projection

import (
	"fmt"
	"sync/atomic"
	"testing"
)

func TestMatchedKeys_AreBoundedPerFilterAndForAll(t *testing.T) {
	var total atomic.Int64
	m := newMatchedKeys(&total)
	for i := range maxMatched {
		m.add(fmt.Sprint(i))
		m.add(fmt.Sprint(i)) // once more
	}
	if total.Load() != maxMatched || !m.has("0") || m.has("another") {
		t.Fatalf("%d keys", total.Load())
	}
	m.add("one more")
	if total.Load() != 0 || !m.has("another") {
		t.Errorf("beyond the bound %d keys are remembered, and another is unknown", total.Load())
	}
	total.Store(maxAllMatched)
	other := newMatchedKeys(&total)
	other.add("k")
	if total.Load() != maxAllMatched || !other.has("another") {
		t.Errorf("beyond the bound of all %d keys are remembered", total.Load())
	}
}
