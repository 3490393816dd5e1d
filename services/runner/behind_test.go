package runner_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// A runner with an older model must not skip triggers of workflows that it does not know.
func TestTrigger_DecidedByNewerModelWaitsForIt(t *testing.T) {
	_, newer, err := model.Wallet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := model.ParseContext(t.Context(), "newer", newer)
	if err != nil {
		t.Fatal(err)
	}
	older := strings.Replace(string(newer), "on: transfer.requested", "on: transfer.failed", 1)
	f := startWith(t, func(context.Context) (string, []byte, error) { return "older", []byte(older), nil },
		webhook.Config{})
	f.wallets(t, "acme")

	acme := natstest.Tenant(t, "acme")
	eventLog, err := journal.Open(t.Context(), f.js)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.TenantContext(t.Context(), acme)
	bucket, err := kv.Open[models.Document](t.Context(), f.js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	order, err := bucket.Put(contextkit.PlatformContext(t.Context()), models.Key,
		models.Document{Revision: parsed.Revision, Text: string(newer)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t1", "t2"} {
		event := journal.Event{
			ID:            contextkit.NewID(),
			Type:          "requested",
			AggregateType: "transfer",
			AggregateID:   id,
			Version:       1,
			Time:          time.Now(),
			Data:          []byte(`{"from":"a","to":"b","amount":100}`),
			Model:         journal.NewModelRef(parsed.Revision, order, false),
		}
		if err := eventLog.Append(ctx, acme, 0, []journal.Event{event}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "the runner does not wait for the newer model", func() bool { return f.node.HandedBack() > 1 }) // and again
	if changed, err := f.models.Apply(t.Context(), "newer", newer, order); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	for _, id := range []string{"t1", "t2"} {
		if got := f.ended(t, "acme", id); got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED {
			t.Errorf("%s: %v", id, got.GetState())
		}
	}
	if balance := f.balance(t, "acme", "a"); balance != 800 {
		t.Errorf("balance %v", balance)
	}
	letters, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
	if err != nil || len(letters.GetLetters()) > 0 {
		t.Errorf("dead letters %v, %v; want none", letters, err)
	}
}
