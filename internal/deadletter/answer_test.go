package deadletter_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestRead_LettersAreReadableAndAnswersDirectedThereAreNot: the server's answer to a direct get of a
// letter names the letter's subject, which is not the event's.
func TestRead_LettersAreReadableAndAnswersDirectedThereAreNot(t *testing.T) {
	js, acme := natstest.Start(t), natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	j, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	events := []journal.Event{
		{
			ID:            contextkit.NewID(),
			Type:          "opened",
			AggregateType: "wallet",
			AggregateID:   "w",
			Version:       1,
			Data:          []byte(`{}`),
		},
	}
	if err := j.Append(ctx, acme, 0, events); err != nil {
		t.Fatal(err)
	}
	if err := deadletter.Store(
		ctx, js, acme, events[0], deadletter.Origin{Work: "workflow x"}, errors.New("refused"),
	); err != nil {
		t.Fatal(err)
	}
	forged, err := events[0].Message(ctx, acme)
	if err != nil {
		t.Fatal(err)
	}
	letter := &nats.Msg{Subject: streams.DeadLetterSubject(acme), Header: forged.Header, Data: forged.Data}
	letter.Header.Set("headgate-subject", forged.Subject)
	letter.Header.Set(jetstream.SubjectHeader, "$KV.nodes.mallory")
	if _, err := js.PublishMsg(ctx, letter); err != nil {
		t.Fatal(err)
	}
	var readable []bool
	if err := deadletter.Read(ctx, js, acme, 1, func(l deadletter.Letter) (bool, error) {
		readable = append(readable, l.Unreadable == nil)
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(readable) != 2 || !readable[0] || readable[1] {
		t.Errorf("readable: %v, want the letter and not the answer", readable)
	}
}
