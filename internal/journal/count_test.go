package journal_test

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestCountEvents_CountsAfterASequence(t *testing.T) {
	js := natstest.Start(t)
	for n := range 10 {
		if _, err := js.Publish(
			t.Context(), fmt.Sprintf("events.acme.%s.a%d", []string{"order", "wallet"}[n%2], n), nil,
		); err != nil {
			t.Fatal(err)
		}
	}
	acme := natstest.Tenant(t, "acme")
	for after, want := range map[uint64]int64{0: 5, 1: 4, 2: 4, 8: 1, 9: 0, 10: 0, 99: 0} {
		if got, err := journal.CountEvents(
			t.Context(), js, streams.EventSubject(acme, "order", "*"), after,
		); err != nil || got != want {
			t.Errorf("after %d: %d, %v; want %d", after, got, err, want)
		}
	}
}
