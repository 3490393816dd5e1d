package fleet

import (
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// TestFollowing_ANodeThatLeftWhileOthersAreExaminedIsNotJudged: the bucket has a deregistration that was not received,
// and cannot be read for the next silent node.
func TestFollowing_ANodeThatLeftWhileOthersAreExaminedIsNotJudged(t *testing.T) {
	s := &following{known: map[string]*announcement{}, lost: map[string]LostNode{}}
	var silent []Node
	for _, id := range []string{"a", "b", "c"} {
		node := Node{ID: id, Kind: contextkit.KindRunner}
		s.known[id] = &announcement{node: node, at: time.Now().Add(-time.Hour), silent: true}
		silent = append(silent, node)
	}
	s.record(s.known["a"].key(), nil, 7, true)
	s.known["c"].silent = false
	if left := s.stillSilent(silent); len(left) != 1 || left[0].ID != "b" {
		t.Errorf("%v are still silent, want b", left)
	}
}
