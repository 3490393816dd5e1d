package runner_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// TestBackup_CompensatedTransferDoesNotGoForward lets a transfer be refused and compensated after a backup has read
// its record, and before it has read the journal's end. After the restore the refused step would be accepted.
func TestBackup_CompensatedTransferDoesNotGoForward(t *testing.T) {
	t.Parallel()
	f := startWith(t, model.Wallet, webhook.Config{})
	f.wallets(t, "acme")
	release, held := make(chan struct{}), make(chan struct{}, 1)
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetAggregateId() == "nowhere" {
			select {
			case held <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	})
	f.transfer(t, "acme", "t", "nowhere", 100)
	natstest.Await(t, held, "a command is held") // the debit is recorded
	undone := false
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), f.js, dir, backup.Options{Progress: func(p backup.Progress) {
		if p.Stream == "KV_"+streams.BucketInstances && !undone {
			undone = true
			close(release)
			if got := f.ended(t, "acme", "t"); got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED {
				t.Errorf("before the restore: %v", got.GetState())
			}
		}
	}}); err != nil {
		t.Fatal(err)
	}
	if !undone {
		t.Fatal("the backup read no records")
	}
	f.stop()

	js := natstest.Start(t)
	report, err := backup.Restore(t.Context(), js, dir, backup.Target{Replace: true, Refusals: runner.AddRefusals},
		backup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Refusals != 1 {
		t.Errorf("%d records were completed, want 1", report.Refusals)
	}
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	tenants, err := rpc.ParseTenants(f.served)
	if err != nil {
		t.Fatal(err)
	}
	service, err := aggregate.New(t.Context(), aggregate.Config{}, js, registry(t, f.source), tenants, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := connect.NewServer(contextkit.ServerInterceptor)
	service.Register(server)
	again := &fixture{
		source: f.source,
		hooks:  f.hooks,
		served: f.served,
		js:     js,
		gate: &gate{
			next: gatewayv1connect.NewCommandServiceClient(
				contextkit.NewClient(connectinprocess.New(server), asRunner),
			),
		},
	}
	again.submit(t, "acme", "wallet", "nowhere", "open", map[string]any{"owner": "late"})
	again.run(t)
	got := again.ended(t, "acme", "t")
	if got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED ||
		!strings.Contains(steps(got), "credit refused") {
		t.Errorf("after the restore: %v: %s", got.GetState(), steps(got))
	}
	if a, nowhere := again.balance(t, "acme", "a"), again.balance(t, "acme", "nowhere"); a != 1000 || nowhere != 0 {
		t.Errorf("balance of a is %v and of nowhere %v, want 1000 and 0", a, nowhere)
	}
}
