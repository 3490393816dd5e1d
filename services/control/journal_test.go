package control_test

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

// TestNoEvent_MessagesAreListedDeclaredAndRevoked publishes messages of another producer.
func TestNoEvent_MessagesAreListedDeclaredAndRevoked(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.control(t, "c1", ""), platform(t)
	want := map[string]journal.Fault{} // by aggregate
	for _, strange := range natstest.StrangeMessages() {
		natstest.PublishStrange(t, w.js, strange, "acme", "wallet", strange.Name, "opened", 1, `{"owner":"ada"}`)
		if strange.Fault != "" {
			want[strange.Name] = strange.Fault
		}
	}
	if _, err := w.js.Publish(t.Context(), "events.NOBODY", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want[""] = journal.FaultSubject
	w.running.Go(func() { _ = c.integrity.Run(w.ctx, true, zerolog.Nop()) })
	journal := func() *controlv1.Journal {
		t.Helper()
		res, err := c.journal.GetJournal(ctx, &controlv1.GetJournalRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetJournal()
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for int(journal().GetUnreadableCount()) < len(want) {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the journal is not read")
		}
	}
	listed := journal().GetUnreadable()
	if len(listed) != len(want) || int(journal().GetUnreadableCount()) != len(want) {
		t.Errorf("%d messages listed, %d counted; want %d", len(listed), journal().GetUnreadableCount(), len(want))
	}
	for n, message := range listed {
		if fault, ok := want[message.GetAggregateId()]; !ok || message.GetFault() != string(fault) ||
			message.GetDetail() == "" {
			t.Errorf("listed: %v", message)
		}
		request := &controlv1.DeclareNoEventRequest{
			TenantId:  message.GetTenantId(),
			Reference: message.GetReference(),
			Reason:    "a test",
		}
		other := &controlv1.DeclareNoEventRequest{
			TenantId:  "globex",
			Reference: message.GetReference(),
			Reason:    "a test",
		}
		if _, err := c.journal.DeclareNoEvent(ctx, other); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("journal of another tenant: %v", err)
		}
		for range 2 { // the second returns the first
			res, err := c.journal.DeclareNoEvent(ctx, request)
			if err != nil || res.GetDeclared().GetReference() != message.GetReference() ||
				res.GetDeclared().GetReason() != "a test" {
				t.Fatalf("declared: %v, %v", res, err)
			}
		}
		if now := journal(); len(now.GetUnreadable()) != len(listed)-n-1 || len(now.GetNonEvents()) != n+1 {
			t.Errorf("after %d declarations: %d messages, %d declarations", n+1, len(now.GetUnreadable()),
				len(now.GetNonEvents()))
		}
	}
	if got := testutil.CollectAndCount(c.integrity, "headgate_journal_unreadable_messages"); got != 1 {
		t.Errorf("%d metrics", got)
	}
	revoked := listed[0]
	request := &controlv1.RevokeNoEventRequest{
		TenantId:  revoked.GetTenantId(),
		Reference: revoked.GetReference(),
		Reason:    "a mistake",
	}
	if res, err := c.journal.RevokeNoEvent(ctx, request); err != nil ||
		res.GetRevoked().GetReference() != revoked.GetReference() {
		t.Errorf("revoked: %v, %v", res, err)
	}
	if _, err := c.journal.RevokeNoEvent(ctx, request); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("second revocation: %v", err)
	}
	if now := journal(); len(now.GetNonEvents()) != len(listed)-1 {
		t.Errorf("%d declarations remain", len(now.GetNonEvents()))
	}
}
