package journal_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

func TestEvent_NamesTheModelThatDecidedIt(t *testing.T) {
	js, acme := natstest.Start(t), natstest.Tenant(t, "acme")
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.TenantContext(t.Context(), acme)
	refs := []journal.ModelRef{{}, journal.NewModelRef("0a1b", 17, false), journal.NewModelRef("2c3d", 0, true)}
	var events []journal.Event
	for n, ref := range refs {
		events = append(
			events,
			journal.Event{
				ID:            contextkit.NewID(),
				Type:          "e",
				AggregateType: "a",
				AggregateID:   "x",
				Version:       int64(n + 1),
				Time:          time.Now(),
				Data:          []byte("{}"),
				Model:         ref,
			},
		)
	}
	if err := eventLog.Append(ctx, acme, 0, events); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = eventLog.Load(ctx, acme, "a", "x", 1, len(events), func(event journal.Event) error {
		if got := event.Model; got.Revision != refs[n].Revision || got.Order != refs[n].Order ||
			got.FromFile != refs[n].FromFile {
			t.Errorf("event %d: %+v, want %+v", n, got, refs[n])
		}
		n++
		return nil
	})
	if err != nil || n != len(events) {
		t.Fatalf("%d events, %v", n, err)
	}
	for _, text := range []string{
		"", "x", "x;", "x;applied", "x;applied=", "x;applied=-1", ";applied=1", "x;later=1", "x;applied=1;more",
	} {
		if ref := journal.ParseModelRef(text); ref.Revision != "" || ref.Order != 0 {
			t.Errorf("%q parsed as %+v", text, ref)
		}
	}
}
