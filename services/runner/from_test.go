package runner_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// bonus is a workflow that credits a wallet for each transfer.
func bonus(name, from string) string {
	return fmt.Sprintf(
		"\n  %s:\n    on: transfer.requested\n    from: %s\n    steps:\n      - {name: give, submit: {aggregate: "+
			"wallet, id: \"'b'\", command: deposit, payload: {amount: \"1\"}}}\n",
		name, from,
	)
}

// change makes the running runner load another model.
func (f *fixture) change(t *testing.T, change func(text string) string) {
	t.Helper()
	*f.text = change(*f.text)
	if _, err := f.admin.Reload(platform(t), &adminv1.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestWorkflow_StartsFromNowOrFromBeginning(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"first model": "",
		"beside another model": "\n  other:\n    on: wallet.opened\n    steps:\n      - {name: a, submit: " +
			"{aggregate: transfer, id: \"'none'\", command: complete}}\n",
		"same event": strings.Replace(bonus("same", "now"), "deposit", "close", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, document, err := model.Wallet(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			head, _, _ := strings.Cut(string(document), "\nworkflows:\n")
			text := head + "\n"
			if before != "" {
				text += "workflows:" +
					strings.Replace(before, "command: close, payload: {amount: \"1\"}",
						"command: deposit, payload: {amount: \"0\"}", 1)
			}
			f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme"},
				func(f *fixture) { f.text = &text })
			f.source = f.fromText
			f.run(t)
			f.wallets(t, "acme")
			for n := range 3 {
				f.transfer(t, "acme", fmt.Sprint("old", n), "b", 1)
			}
			wait(t, "the cursor does not pass the events", func() bool {
				status, err := f.admin.Status(platform(t), &adminv1.StatusRequest{})
				return err == nil && status.GetStatus().GetTenants()[0].GetPending() == 0
			})
			f.change(t, func(text string) string {
				if before == "" {
					text += "workflows:"
				}
				return text + bonus("now", "now") + bonus("all", "beginning")
			})
			f.transfer(t, "acme", "new", "b", 1)
			wait(t, "the workflows do not run from their start",
				func() bool { return f.balance(t, "acme", "b") == 5 }) // 1 from now, 4 from the beginning
			f.stop()
			f.run(t)
			f.transfer(t, "acme", "newer", "b", 1)
			wait(t, "the workflows do not run after a restart", func() bool { return f.balance(t, "acme", "b") == 7 })
			list, err := f.admin.ListWorkflows(as(t, "acme"), &adminv1.ListWorkflowsRequest{Workflow: "now"})
			if err != nil || len(list.GetInstances()) != 2 {
				t.Errorf("from now on: %d instances, %v; want 2", len(list.GetInstances()), err)
			}
			if list, err = f.admin.ListWorkflows(
				as(t, "acme"), &adminv1.ListWorkflowsRequest{Workflow: "all"},
			); err != nil || len(list.GetInstances()) != 5 {
				t.Errorf("from the beginning: %d instances, %v; want 5", len(list.GetInstances()), err)
			}
		})
	}
}

// TestWorkflow_OfModelAppliedWithoutLease applies a model after the runner was created and before it runs, as during
// a start: the tail must not deliver by the previous model.
func TestWorkflow_OfModelAppliedWithoutLease(t *testing.T) {
	_, document, err := model.Wallet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(document), "\nworkflows:\n")
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme"},
		func(f *fixture) { f.text = &text })
	f.source = f.fromText
	f.before = func(*runner.Service) {
		text += "\nworkflows:" + bonus("all", "beginning")
		if changed, err := f.models.Reload(t.Context()); err != nil || !changed {
			t.Fatal(changed, err)
		}
	}
	f.wallets(t, "acme")
	f.run(t)
	for n := range 3 { // the first one may be found when the tenant is taken up
		f.transfer(t, "acme", fmt.Sprint("t", n), "b", 1)
		wait(t, "an event does not start the workflow",
			func() bool { return f.balance(t, "acme", "b") == float64(n+1) })
	}
}

// TestBackfill_ContinuesWithNextOwner stops a runner during the backfill of a workflow.
func TestBackfill_ContinuesWithNextOwner(t *testing.T) {
	_, document, err := model.Wallet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(document), "\nworkflows:\n")
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme"},
		func(f *fixture) { f.text = &text })
	f.source = f.fromText
	f.wallets(t, "acme")
	const events = 150
	for n := range events {
		f.transfer(t, "acme", fmt.Sprint("t", n), "b", 1)
	}
	f.run(t)
	wait(t, "the cursor does not pass the events", func() bool {
		status, err := f.admin.Status(platform(t), &adminv1.StatusRequest{})
		return err == nil && status.GetStatus().GetTenants()[0].GetPending() == 0
	})
	var sent atomic.Int32
	halfway := make(chan struct{})
	f.gate.set(func(ctx context.Context, _ *aggregatev1.SubmitRequest) error {
		if rc, _ := contextkit.FromContext(ctx); rc.Depth != 1 {
			t.Errorf("depth of the command is %d, want 1", rc.Depth)
		}
		if sent.Add(1) == events/2 {
			close(halfway)
		}
		return nil
	})
	f.change(t, func(text string) string { return text + "\nworkflows:" + bonus("all", "beginning") })
	<-halfway
	f.stop()
	f.run(t)
	wait(t, "the remaining steps are not done", func() bool { return f.balance(t, "acme", "b") == events })
	wait(t, "the stored cursor still has the backfill", func() bool {
		cursor, err := kv.Read(contextkit.PlatformContext(t.Context()), f.js, streams.BucketCursors, "acme")
		return err == nil && !strings.Contains(string(cursor.Value), "backfills") &&
			strings.Contains(string(cursor.Value), "all@transfer.requested")
	})
}
