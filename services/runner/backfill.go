package runner

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

const (
	// backfillPart is the number of events that are read together, and backfillWork the number of events that are
	// processed concurrently.
	backfillPart, backfillWork = 64, 4
)

// backfill is a workflow whose earlier events still have to be processed, because the workflow was not in the
// runner's model when the tenant's cursor passed them.
type backfill struct {
	// Workflow is its identity.
	Workflow string `json:"workflow"`
	// Next is the last sequence that was processed, and Until the last one to process.
	Next  uint64 `json:"next"`
	Until uint64 `json:"until"`
}

// cover makes the cursor cover a model's workflows: for each one that it does not cover yet, it starts a backfill of
// the events that the cursor has passed. The caller holds o.claiming.
func (o *owned) cover(ctx context.Context, m *model.Model) error {
	o.mu.Lock()
	done := o.model == m.Revision
	o.mu.Unlock()
	if done {
		return nil
	}
	after, err := o.term.service.starts.of(ctx, m)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	all := identities(m)
	o.backfills = slices.DeleteFunc(o.backfills, func(b backfill) bool { return !slices.Contains(all, b.Workflow) })
	for _, w := range m.Workflows() {
		start := after[w.Identity()]
		if w.FromBeginning {
			start = 0
		}
		if !slices.Contains(o.covered, w.Identity()) && start < o.read {
			o.backfills = append(o.backfills, backfill{w.Identity(), start, o.read})
		}
	}
	o.covered, o.model = all, m.Revision
	o.touch()
	o.fill()
	return nil
}

// fill starts the backfills if the tenant is claimed. The caller holds o.mu.
func (o *owned) fill() {
	if o.claimed && len(o.backfills) > 0 && !o.backfilling && o.accepting.Err() == nil {
		o.backfilling = true
		o.term.spawn(func() { o.fillAll(o.accepting) })
	}
}

// fillAll processes the backfills, one after another, until there are none or ctx ends.
func (o *owned) fillAll(ctx context.Context) {
	for {
		o.mu.Lock()
		if len(o.backfills) == 0 || ctx.Err() != nil {
			o.backfilling = false
			o.mu.Unlock()
			return
		}
		b := o.backfills[0]
		o.mu.Unlock()
		next, err := o.fillPart(ctx, b)
		if err != nil {
			if ctx.Err() == nil {
				o.term.service.log.Warn().Err(err).Str("tenant", o.tenant.String()).Str("workflow", b.Workflow).Msg(
					"backfill of a workflow's earlier events failed, retrying",
				)
			}
			select {
			case <-time.After(restartWait):
			case <-ctx.Done():
			}
			continue
		}
		o.mu.Lock()
		if n := slices.IndexFunc(
			o.backfills, func(other backfill) bool { return other.Workflow == b.Workflow },
		); n >= 0 {
			if o.backfills[n].Next = max(next, o.backfills[n].Next); o.backfills[n].Next >= o.backfills[n].Until {
				o.backfills = slices.Delete(o.backfills, n, n+1)
			}
			o.touch()
		}
		o.mu.Unlock()
	}
}

// fillPart processes the next events of a backfill, and returns the last sequence that was processed.
func (o *owned) fillPart(ctx context.Context, b backfill) (uint64, error) {
	s := o.term.service
	m := s.models.Current()
	n := slices.IndexFunc(m.Workflows(), func(w *model.Workflow) bool { return w.Identity() == b.Workflow })
	if n < 0 {
		return b.Until, nil // it was removed from the model again
	}
	w := m.Workflows()[n]
	next, events := b.Next, []journal.Event{}
	take := func(msg *jetstream.RawStreamMsg) error {
		if msg.Sequence > b.Until {
			next = b.Until
			return errEnough
		}
		next = msg.Sequence
		event, err := journal.ReadEvent(journal.RawMessage(msg))
		if err == nil && event.Type == w.On.Event {
			events = append(events, event)
		}
		return nil
	}
	subject, read := streams.EventSubject(o.tenant, w.On.Aggregate, "*"), 0
	err := natsclient.ReadPart(
		ctx, s.js, streams.Events, subject, b.Next+1, backfillPart, func(msg *jetstream.RawStreamMsg) error {
			read++
			return take(msg)
		},
	)
	if err == nil && read < backfillPart { // up to the end that the responding replica knows
		var msg *jetstream.RawStreamMsg
		if msg, err = natsclient.FirstMessage(ctx, s.js, streams.Events, subject, next+1); err == nil {
			if msg == nil {
				next = b.Until
			} else {
				err = take(msg)
			}
		}
	}
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(backfillWork)
	for _, event := range events {
		group.Go(func() error { return o.fillOne(working, m, w, event) })
	}
	return next, group.Wait()
}

// errEnough ends a read.
var errEnough = errors.New("enough")

// fillOne runs a workflow for an earlier event, when it is the tenant's turn.
func (o *owned) fillOne(ctx context.Context, m *model.Model, w *model.Workflow, event journal.Event) error {
	worker := o.term.service.worker(o.tenant)
	release, err := worker.turns.acquire(ctx, o.tenant)
	if err != nil {
		return err
	}
	defer release()
	if !o.term.service.lease.Valid() {
		return errNoLease
	}
	worker.inFlight.Add(1)
	defer worker.inFlight.Add(-1)
	ctx, cancel := newAttempt(ctx)
	defer cancel()
	rc := event.Context
	rc.CausationID, rc.RequestID = event.ID, contextkit.NewID()
	rc.Depth++
	ctx = contextkit.NewContext(ctx, rc)
	i, err := worker.engine.run(ctx, m, w, o.tenant, event)
	return worker.finishAttempt(ctx, event, w.Name, i, err, try{})
}
