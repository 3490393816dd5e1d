package runner_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// lose starts a transfer that waits, stops the runner and removes the message of the wait. It returns the correlation
// id of the transfer.
func lose(t *testing.T, f *fixture) string {
	t.Helper()
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	var correlation string
	wait(t, "the schedule is stored", func() bool {
		msg, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.transfer.*")
		if err != nil {
			return false
		}
		rc, err := contextkit.ExtractNATS(msg.Header)
		correlation = rc.CorrelationID
		return err == nil
	})
	f.stop()
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	return correlation
}

func TestRearm_WaitWithoutMessageEnds(t *testing.T) {
	t.Parallel()
	f := startWith(t, withSteps(t, debit+"      - {name: cool, wait: \"'1s'\"}\n"+complete), webhook.Config{})
	correlation := lose(t, f)
	seen := make(chan string, 1)
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetCommand() == "complete" {
			rc, _ := contextkit.FromContext(ctx)
			select {
			case seen <- rc.CorrelationID:
			default:
			}
		}
		return nil
	})
	f.config.Rearm = 50 * time.Millisecond
	f.run(t)
	if got := f.ended(t, "acme", "t"); steps(got) != "debit done, cool done, complete done" {
		t.Errorf("steps at the end: %s", steps(got))
	}
	if balance := f.balance(t, "acme", "a"); balance != 900 {
		t.Errorf("balance of a is %v, want 900", balance)
	}
	if got := natstest.Await(t, seen, "the command is submitted"); got != correlation {
		t.Errorf("correlation id %q after the restore, %q before", got, correlation)
	}
}

func TestRearm_SkipsWaitsWithMessage(t *testing.T) {
	f := startWith(t, withSteps(t, "      - {name: cool, wait: \"'1h'\"}\n"+complete), webhook.Config{})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	f.transfer(t, "acme", "u", "b", 100)
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	sequence := func(instance string) uint64 {
		got, err := f.admin.GetWorkflow(as(t, "acme"),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: instance})
		if err != nil {
			return 0
		}
		names[instance] = got.GetInstanceId()
		msg, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.transfer."+got.GetInstanceId())
		if err != nil {
			return 0
		}
		return msg.Sequence
	}
	wait(t, "the schedules are stored", func() bool { return sequence("t") > 0 && sequence("u") > 0 })
	f.stop()
	before := sequence("t")
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("later.acme.transfer."+names["u"])); err != nil {
		t.Fatal(err)
	}
	f.config.Rearm = 50 * time.Millisecond
	f.run(t)
	wait(t, "the lost schedule is stored again", func() bool { return sequence("u") > 0 }) // by a search that saw both
	if now := sequence("t"); now != before {
		t.Errorf("a wait with a message was scheduled again: sequence %d, was %d", now, before)
	}
}

func TestAddRefusals_FromLaterRecord(t *testing.T) {
	const (
		running  = `{"workflow":"w","id":"i","state":"running","steps":[{"name":"debit","outcome":"done"}]}`
		refused  = `{"workflow":"w","id":"i","state":"compensated","requests":{"x":{"key":"k"}},"attempts":{"step":"x"},"failure":{"Step":"credit","Message":"closed"},"steps":[{"name":"debit","outcome":"done"},{"name":"credit","outcome":"refused","message":"closed"},{"name":"undo debit","outcome":"done"}]}`
		waiting  = `{"workflow":"w","id":"i","state":"running","waiting":{"step":"cool"},"steps":[]}`
		complete = `{"workflow":"w","id":"i","state":"completed","steps":[{"name":"debit","outcome":"done"},{"name":"credit","outcome":"done"}]}`
	)
	for name, of := range map[string]struct{ restored, later, steps, state string }{
		"after a rejection":      {running, refused, "debit done, credit refused", "running"},
		"no record":              {"", refused, "credit refused", "running"},
		"waiting":                {waiting, refused, "credit refused", "running"},
		"it is there":            {refused, refused, "", ""},
		"nothing was refused":    {running, complete, "", ""},
		"neither, and no record": {"", complete, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var restored []byte
			if of.restored != "" {
				restored = []byte(of.restored)
			}
			out, err := runner.AddRefusals(restored, []byte(of.later))
			if err != nil {
				t.Fatal(err)
			}
			if of.steps == "" {
				if out != nil {
					t.Fatalf("record becomes %s", out)
				}
				return
			}
			var got struct {
				State string `json:"state"`
				Steps []struct {
					Name    string `json:"name"`
					Outcome string `json:"outcome"`
				} `json:"steps"`
				Waiting  *struct{ Step string } `json:"waiting"`
				Requests map[string]any         `json:"requests"`
				Attempts any                    `json:"attempts"`
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Requests) > 0 || got.Attempts != nil {
				t.Errorf("the record has requests or attempts of the later one: %s", out)
			}
			text := ""
			for _, step := range got.Steps {
				if text != "" {
					text += ", "
				}
				text += step.Name + " " + step.Outcome
			}
			if text != of.steps || got.State != of.state || (got.Waiting != nil) != (of.restored == waiting) {
				t.Errorf("record becomes %s", out)
			}
		})
	}
}
