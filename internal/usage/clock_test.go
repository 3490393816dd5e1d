package usage

import (
	"testing"
	"time"
)

// The claim of a node that died counts for two claims at most, regardless of what its clock showed.
func TestRecount_ClaimsEndWhateverClocksShow(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, ahead := range []time.Duration{
		-24 * time.Hour, -time.Hour, -time.Minute, 0, time.Second, time.Minute, time.Hour, 24 * time.Hour,
	} {
		c := counting{Node: "n1", Until: now.Add(ahead).Add(claim), Done: now.Add(ahead)}
		held := 0
		for second := range 48 * 3600 {
			if c.claimed(now.Add(time.Duration(second) * time.Second)) {
				held++
			}
		}
		if bound := int(2 * claim / time.Second); held > bound {
			t.Errorf("of a node whose clock was %v ahead the claim counts for %d s, want %d at most", ahead, held,
				bound)
		}
		if ahead == 0 && !c.claimed(now) {
			t.Error("the claim of a node whose clock is right does not count")
		}
		if ahead > 0 && c.recent(now) {
			t.Errorf("a count that ended %v from now holds up the next one", ahead)
		}
	}
}
