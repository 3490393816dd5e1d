package runner

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// A wait that exceeds the maximum schedule is a chain of schedules, and it ends when NATS delivers the last one, even
// to a runner whose clock is behind.
func TestWait_OfMonthsIsChainedByNATSClock(t *testing.T) {
	js, acme := natstest.Start(t), natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	records, err := openInstances(ctx, js, func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{js: js, instances: records, postponed: &postponed{held: new(atomic.Int64)}}
	source := []byte(
		"model: m\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, evolve: {e: {}}}}\nworkflows: {w: {on: a.e, " +
			"steps: [{name: rest, wait: \"'P70D'\"}, {name: s, submit: {aggregate: a, id: \"'1'\", command: x}}]}}\n",
	)
	m, err := model.ParseContext(ctx, "m", source)
	if err != nil {
		t.Fatal(err)
	}
	rest := &m.Workflows()[0].Steps[0]
	began := time.Now()
	i := &instance{
		Workflow: "w",
		ID:       "i",
		State:    stateRunning,
		tenant:   acme,
	}
	schedule := func() time.Time {
		t.Helper()
		stream, err := js.Stream(ctx, streams.Work)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := stream.GetLastMsgForSubject(ctx, streams.LaterSubject(acme, "w", "i"))
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse("@at "+time.RFC3339Nano, msg.Header.Get("Nats-Schedule"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	// The runner's clock stands still at the start of the wait while NATS's advances.
	for _, woken := range []time.Duration{0, maxSchedule, 2 * maxSchedule} {
		i.woken = began.Add(woken)
		waits, err := e.wait(ctx, i, rest)
		if err != nil || !waits {
			t.Fatalf("after %s: %v, %v; want waiting", woken, waits, err)
		}
		at, latest := schedule(), i.Waiting.Until
		if next := time.Now().Add(maxSchedule); next.Before(latest) {
			latest = next
		}
		if at.After(latest.Add(time.Second)) || !at.After(i.woken) && woken == 0 {
			t.Errorf("after %s: next schedule at %v, want at most 28 days ahead", woken, at)
		}
	}
	if d := i.Waiting.Until.Sub(began).Round(time.Minute); d != 70*24*time.Hour {
		t.Errorf("waited %s, want 70 days", d)
	}
	i.woken = i.Waiting.Until
	if waits, err := e.wait(ctx, i, rest); err != nil || waits || len(i.Steps) != 1 || i.Waiting != nil {
		t.Errorf("at its end: %v, %v with %v; want the step done", waits, err, i.Steps)
	}
	// The same holds for the next attempt at a step.
	i.Attempts = &attempts{Step: "s", First: i.woken, Next: i.woken}
	if later, err := e.pending(ctx, i); err != nil || later {
		t.Errorf("attempt due by NATS's clock: %v, %v; want no further wait", later, err)
	}
	i.Attempts.Next = i.woken.Add(time.Minute)
	if later, err := e.pending(ctx, i); err != nil || !later {
		t.Errorf("attempt not yet due: %v, %v", later, err)
	}
	// The next delay starts then too; otherwise there would be none as long as the clock is behind.
	if err := e.postpone(ctx, i, &stepError{name: "s", err: errors.New("503")}, 0); err != nil ||
		i.Attempts.Next.Before(i.woken) {
		t.Errorf("%v; next attempt at %v, want after %v", err, i.Attempts, i.woken)
	}
}
