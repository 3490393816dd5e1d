package backbone

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

func TestABatchHasTheEventsThatAreThereOrKnownToCome(t *testing.T) {
	type event = followed[int]
	for _, tt := range []struct {
		name string
		sent []event
		then []event       // sent once those before have been taken
		wait time.Duration // 0: for ever
		want [][]int
	}{
		{name: "the last one that there is waits for nothing", sent: []event{{1, 1, false}}, want: [][]int{{1}}},
		{name: "those that wait already go together", sent: []event{{1, 1, false}, {2, 1, false}, {3, 1, false}}, want: [][]int{{1, 2, 3}}},
		{name: "those known to come are waited for", sent: []event{{1, 1, true}}, then: []event{{2, 1, true}, {3, 1, false}}, want: [][]int{{1, 2, 3}}},
		{name: "no more than there is room for", sent: []event{{1, 1, true}, {2, 1, true}, {3, 1, true}, {4, 1, true}, {5, 1, false}}, want: [][]int{{1, 2, 3, 4}, {5}}},
		{name: "no more bytes than there is room for", sent: []event{{1, 6, true}, {2, 4, true}, {3, 20, true}, {4, 1, false}}, want: [][]int{{1, 2}, {3}, {4}}},
		{name: "an event that was known to come, and does not, is not waited for for ever", sent: []event{{1, 1, true}}, wait: 1, want: [][]int{{1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prepared := make(chan event, len(tt.sent))
			for _, e := range tt.sent {
				prepared <- e
			}
			// A sender waits until the last one is taken, since the channel is full.
			go func() {
				for _, e := range tt.then {
					prepared <- e
				}
			}()
			for _, want := range tt.want {
				got, _, open := gather(make([]int, 0, 4), prepared, 10, cmp.Or(tt.wait, time.Hour))
				if !open || !slices.Equal(got, want) {
					t.Errorf("gathered %v (open: %v), want %v", got, open, want)
				}
			}
			close(prepared)
			if got, size, open := gather(make([]int, 0, 4), prepared, 10, cmp.Or(tt.wait, time.Hour)); open || size > 0 || len(got) > 0 {
				t.Errorf("after the end: %v, %v", got, open)
			}
		})
	}
}
