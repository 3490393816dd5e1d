package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

func TestRollout_UsesAppliedModelsAndReportsUnusableOnes(t *testing.T) {
	js, ctx := natstest.Start(t), contextkit.PlatformContext(t.Context())
	r, follow, err := openModels(ctx, js, "", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- follow(running) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	documents, err := kv.Open[models.Document](ctx, js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	started := r.models.Current()
	if started.Order == 0 || !started.FromFile {
		t.Fatalf("the model that the node starts with is at %d, from a file %v", started.Order, started.FromFile)
	}
	var revision uint64
	apply := func(text string) {
		t.Helper()
		var err error
		if revision, err = documents.Put(
			ctx, models.Key, models.Document{Text: text, Revision: "next"}, revision,
		); err != nil {
			t.Fatal(err)
		}
	}
	announced := func() (node fleet.Node) {
		r.announce(&node)
		return node
	}
	until := func(what string, condition func() bool) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for !condition() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal(what)
			}
		}
	}
	apply(started.Text + "\nlater: true\n") // of a later version's language
	until("the problem is not announced", func() bool { return announced().ModelProblem != "" })
	if node := announced(); node.Model != started.Revision || node.ModelPending != "next" ||
		!strings.Contains(node.ModelProblem, `unknown key "later"`) {
		t.Errorf("announced %+v", node)
	}
	want := "# HELP headgate_model_pending 1 while a model has been applied that the process does not use.\n# TYPE " +
		"headgate_model_pending gauge\nheadgate_model_pending 1\n"
	if err := testutil.CollectAndCompare(r, strings.NewReader(want), "headgate_model_pending"); err != nil {
		t.Error(err)
	}
	apply(started.Text + "\n# changed\n")
	until("the next model is not used", func() bool { return announced().ModelPending == "" })
	if m := r.models.Current(); m.Revision == started.Revision || m.Order != revision || m.FromFile ||
		announced().ModelProblem != "" || announced().Model != m.Revision {
		t.Errorf("%s at %d is in use, announced %+v", m.Revision, m.Order, announced())
	}
	apply(started.Text) // back
	until("the first model is not used again", func() bool { return r.models.Current().Order == revision })
	if m := r.models.Current(); m.Revision != started.Revision {
		t.Errorf("%s is in use", m.Revision)
	}
}

// A failed attempt is retried without another change of the bucket.
func TestRollout_FailedAttemptIsRetried(t *testing.T) {
	documents, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	r := newRollout(documents, zerolog.Nop())
	r.announceNext(
		kv.Entry[models.Document]{
			Value:    models.Document{Text: documents.Current().Text + "\n# changed\n", Revision: "next"},
			Revision: 5,
		},
	)
	failing, fail := context.WithCancel(t.Context())
	fail()
	if r.try(failing) || documents.Current().Order != 0 {
		t.Fatal("a canceled check has an outcome")
	}
	if !r.try(t.Context()) || documents.Current().Order != 5 || !r.try(t.Context()) {
		t.Fatalf("the model at %d is in use", documents.Current().Order)
	}
}

func TestRights_ThatMatchNothingInTheModel(t *testing.T) {
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"command.submit": false, "command.submit:*": false, "command.submit:transfer": false,
		"command.submit:transfer.request": false, "command.submit:wal*": false, "command.submit:wallet.de*": false,
		"command.submit:transfer.complete": true, "command.submit:purse": true, "command.submit:transfer.reverse": true,
		"command.submit:transfer.x*": true,
		"command.internal":           false, "command.internal:transfer.complete": false,
		"command.internal:transfer": false,
		"command.internal:wallet":   true, "command.internal:transfer.request": true,
		"aggregate.read:wallet": false, "aggregate.read:wallet.open": true, "query.read:wallets": false,
		"events.read:wallet": false, "events.read:w*": false, "events.read:wallets": true,
		"query.read:wallet": true, "query.read:w*": false,
		"workflow.read:transfer": false, "workflow.read:transfers": true, "fleet.admin:acme": false,
		"thing.read:x": false,
	} {
		right, err := auth.ParseRight(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(unmatchedRights(models.Current(), []auth.Right{right})) > 0; got != want {
			t.Errorf("%s matches nothing: %v, want %v", text, got, want)
		}
	}
}
