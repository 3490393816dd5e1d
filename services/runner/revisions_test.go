package runner_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// Models that unfinished instances are pinned to are stored until the last of these instances has ended, and for a
// day after that. Models that no instance needs are not stored.
func TestRevisions_ExpireAfterLastInstanceEnds(t *testing.T) {
	var healthy atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	_, document, err := withSteps(
		t,
		debit+"      - {name: tell, retry: {attempts: 1}, webhook: {url: \"'"+server.URL+
			"'\", body: {to: event.to}}}\n"+complete,
	)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := string(document)
	f := startOn(t, natstest.Start(t), model.Wallet, localHooks, []string{"acme"}, func(f *fixture) { f.text = &text })
	f.source = f.fromText
	f.run(t)
	f.wallets(t, "acme")
	stored := func(revision string) bool {
		t.Helper()
		_, err := kv.Read(platform(t), f.js, streams.BucketRevisions, revision)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	expire := func(after time.Duration) {
		t.Helper()
		if err := f.node.ExpireRevisions(platform(t), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	first := f.models.Current().Revision
	f.transfer(t, "acme", "old", "b", 10)
	f.inState(t, "old", adminv1.WorkflowState_WORKFLOW_STATE_STUCK)
	f.change(t, func(text string) string { return strings.Replace(text, "name: tell", "name: notify", 1) })
	second := f.models.Current().Revision
	f.transfer(t, "acme", "new", "b", 10)
	f.inState(t, "new", adminv1.WorkflowState_WORKFLOW_STATE_STUCK)
	if first == second || !stored(first) || !stored(second) {
		t.Fatal("the models of unfinished instances are not stored")
	}
	expire(100 * 24 * time.Hour) // also long after
	if !stored(first) || !stored(second) {
		t.Error("the model of an unfinished instance is removed")
	}
	healthy.Store(true)
	if _, err := f.admin.RetryWorkflow(
		as(t, "acme"),
		&adminv1.RetryWorkflowRequest{Workflow: "transfer", InstanceId: "old", Reason: "the receiver works again"},
	); err != nil {
		t.Fatal(err)
	}
	if got := f.inState(
		t, "old", adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
	); steps(got) != "debit done, tell done, complete done" {
		t.Errorf("%s", steps(got))
	}
	expire(time.Hour) // an instance may be starting with it
	if !stored(first) {
		t.Error("a model is removed within a day of its last use")
	}
	expire(25 * time.Hour)
	if stored(first) || !stored(second) {
		t.Errorf("first model stored: %v, second: %v; want only the second", stored(first), stored(second))
	}
}
