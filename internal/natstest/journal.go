package natstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
)

// OpenJournal returns a journal over a server that ends with the test.
func OpenJournal(t *testing.T) (*journal.Journal, jetstream.JetStream) {
	t.Helper()
	js := Start(t)
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	return journal, js
}

// Events returns n events of wallet id, the first of them with version first.
func Events(id string, first, n int, key string) []journal.Event {
	list := make([]journal.Event, n)
	for i := range list {
		list[i] = journal.Event{
			ID:            contextkit.NewID(),
			Type:          "deposited",
			AggregateType: "wallet",
			AggregateID:   id,
			Version:       int64(first + i),
			Time:          time.Now(),
			Data:          fmt.Appendf(nil, `{"amount":%d}`, first+i),
			Command:       journal.CommandRef{IdempotencyKey: key, Fingerprint: "f"},
		}
	}
	return list
}

// Load returns the events of a wallet.
func Load(t *testing.T, eventLog *journal.Journal, tenant contextkit.TenantID, id string) []journal.Event {
	t.Helper()
	var got []journal.Event
	err := eventLog.Load(t.Context(), tenant, "wallet", id, 1, 0, func(e journal.Event) error {
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
