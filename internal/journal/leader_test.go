package journal_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// behind has a share of the direct gets of the journal answered by what has nothing of
// acme's: a mirror of another tenant's events, which NATS asks as it asks replicas.
func behind(t *testing.T, journal *journal.Journal, js jetstream.JetStream) {
	t.Helper()
	globex := natstest.Tenant(t, "globex")
	mirror, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:   "BEHIND",
		Mirror: &jetstream.StreamSource{Name: streams.Events, FilterSubject: streams.TenantEvents(globex)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Append(
		contextkit.TenantContext(t.Context(), globex), globex, 0, natstest.Events("w", 1, 1, ""),
	); err != nil {
		t.Fatal(err)
	}
	for { // it answers from its first message on
		info, err := mirror.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs > 0 {
			return
		}
	}
}

func TestRead_AcknowledgedEventsDespiteAStaleReplica(t *testing.T) {
	journal, js := natstest.OpenJournal(t)
	behind(t, journal, js)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	own := natstest.Events("w", 1, 3, "")
	if err := journal.Append(ctx, acme, 0, own); err != nil {
		t.Fatal(err)
	}
	for range 40 { // who answers is up to NATS
		if got := natstest.Load(t, journal, acme, "w"); len(got) != 3 || got[2].Version != 3 {
			t.Fatalf("%d events read, want 3", len(got))
		}
		if last, err := journal.Last(ctx, acme); err != nil || last != own[2].Sequence {
			t.Fatalf("last event at %d, %v; want %d", last, err, own[2].Sequence)
		}
	}
}

func TestLast_TenantWithoutEventsHasNone(t *testing.T) {
	journal, _ := natstest.OpenJournal(t)
	acme := natstest.Tenant(t, "acme")
	ctx, cancel := context.WithCancel(contextkit.TenantContext(t.Context(), acme))
	if last, err := journal.Last(ctx, acme); err != nil || last != 0 {
		t.Errorf("tenant without events: last event at %d, %v", last, err)
	}
	cancel()
	if _, err := journal.Last(ctx, acme); err == nil {
		t.Error("a canceled call returned an answer")
	}
}
