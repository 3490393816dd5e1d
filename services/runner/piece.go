package runner

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/workqueue"
)

// piece is a trigger, or due work, that was accepted and has not ended.
type piece struct {
	sequence uint64
	failed   int // attempts
	unstored unstored
	// event is the event of a trigger; nil after a restart or a failure, when it is read again.
	event *journal.Event
	// due is set for due work.
	due *workqueue.Due
	// retry is the timer of the next attempt.
	retry *time.Timer
}

// bytes returns the approximate memory of a piece.
func (p *piece) bytes() int64 {
	if p.event == nil {
		return pieceBytes
	}
	return pieceBytes + int64(len(p.event.Data))
}

// pieceBytes is the approximate memory of a piece without its event's data.
const pieceBytes = 2 << 10

// work makes one attempt at a piece and reports whether it has ended; if not, again is the delay of the next attempt.
func (o *owned) work(ctx context.Context, p *piece) (ended bool, again time.Duration) {
	w := o.term.service.worker(o.tenant)
	t := try{failed: p.failed, quick: p.failed < quickRetries && o.waitsFew(), unstored: &p.unstored}
	if p.due != nil {
		if ended, again = w.workDue(ctx, *p.due, t); !ended {
			return false, again
		}
		if err := workqueue.Remove(ctx, w.js, p.sequence); err != nil {
			w.log.Warn().Err(err).Str("workflow", p.due.Workflow).Str("instance", p.due.Instance).Msg(
				"removing completed due work failed, the instance will be checked again",
			)
			return false, retryDelay(p.failed + 1)
		}
		return true, 0
	}
	if p.event != nil {
		return w.workTrigger(ctx, *p.event, t)
	}
	event, err := o.term.event(ctx, o.tenant, p.sequence)
	switch {
	case errors.Is(err, journal.ErrMalformedEvent), errors.Is(err, errNoTrigger):
		if unreadable, ok := errors.AsType[*journal.UnreadableError](err); ok {
			w.unreadable(unreadable)
		} else {
			w.log.Error().Err(err).Uint64("sequence", p.sequence).Msg("a trigger cannot be read and is skipped")
		}
		return true, 0
	case err != nil:
		w.log.Warn().Err(err).Uint64("sequence", p.sequence).Msg("reading a trigger failed, retrying")
		return false, firstRetry
	}
	return w.workTrigger(ctx, event, t)
}

// waitsFew reports whether only a few of the tenant's pieces wait in its window for a retry.
func (o *owned) waitsFew() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.retrying < quickWindow
}

// workTrigger runs the workflows that a trigger starts.
func (w *worker) workTrigger(ctx context.Context, event journal.Event, t try) (ended bool, again time.Duration) {
	rc := event.Context
	rc.CausationID = event.ID
	rc.Depth++
	rc.RequestID = contextkit.NewID()
	ctx = contextkit.NewContext(ctx, rc)
	err := w.react(ctx, event, t)
	if err == nil {
		return true, 0
	}
	again = retryDelay(t.failed + 1)
	w.log.Warn().Err(err).Str("event_id", event.ID).Str("correlation_id",
		rc.CorrelationID).Dur("again_in_ms", again).Msg("a trigger failed, retrying")
	return false, again
}

// workDue drives the instance of due work.
func (w *worker) workDue(ctx context.Context, work workqueue.Due, t try) (ended bool, again time.Duration) {
	rc := work.Context
	rc.RequestID = contextkit.NewID()
	ctx = contextkit.NewContext(ctx, rc)
	event, i, err := w.engine.resume(ctx, work)
	if err = w.finishAttempt(ctx, event, work.Workflow, i, err, t); err == nil {
		return true, 0
	}
	again = retryDelay(t.failed + 1)
	w.log.Warn().Err(err).Str("workflow", work.Workflow).Str("instance", work.Instance).Str("correlation_id",
		rc.CorrelationID).Dur("again_in_ms", again).Msg("due work failed, retrying")
	return false, again
}
