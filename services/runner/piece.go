package runner

import (
	"context"
	"errors"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
)

// piece is a trigger, or due work, that was taken and has not ended.
type piece struct {
	sequence uint64
	failed   int // attempts
	unstored unstored
	// event is a trigger's; nil after a restart or a failure: it is read again.
	event *backbone.Event
	// due is set for due work.
	due *backbone.DueWork
	// retry runs while the next attempt waits for its time.
	retry *time.Timer
}

// bytes is about what a piece holds in memory.
func (p *piece) bytes() int64 {
	if p.event == nil {
		return pieceBytes
	}
	return pieceBytes + int64(len(p.event.Data))
}

// pieceBytes is about what a piece takes beside its event's data.
const pieceBytes = 2 << 10

// work makes one attempt at a piece and reports whether it has ended; if not, after which wait
// it is tried again.
func (o *owned) work(ctx context.Context, p *piece) (ended bool, again time.Duration) {
	w := o.term.service.worker(o.tenant)
	t := try{failed: p.failed, quick: p.failed < quickRetries && o.waitsFew(), unstored: &p.unstored}
	if p.due != nil {
		if ended, again = w.workDue(ctx, *p.due, t); !ended {
			return false, again
		}
		if err := backbone.RemoveDueWork(ctx, w.js, p.sequence); err != nil {
			w.log.Warn().Err(err).Str("workflow", p.due.Workflow).Str("instance", p.due.Instance).Msg("due work is done and not removed; the instance will be looked at again")
			return false, retryDelay(p.failed + 1)
		}
		return true, 0
	}
	if p.event != nil {
		return w.workTrigger(ctx, *p.event, t)
	}
	event, err := o.term.event(ctx, o.tenant, p.sequence)
	switch {
	case errors.Is(err, backbone.ErrMalformedEvent), errors.Is(err, errNoTrigger):
		if unreadable, ok := errors.AsType[*backbone.UnreadableError](err); ok {
			w.unreadable(unreadable)
		} else {
			w.log.Error().Err(err).Uint64("sequence", p.sequence).Msg("a trigger cannot be read and is left out")
		}
		return true, 0
	case err != nil:
		w.log.Warn().Err(err).Uint64("sequence", p.sequence).Msg("a trigger is not read; it is tried again")
		return false, firstRetry
	}
	return w.workTrigger(ctx, event, t)
}

// waitsFew reports whether few of the tenant's pieces wait in its window for another attempt.
func (o *owned) waitsFew() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.retrying < quickWindow
}

// workTrigger runs the workflows that a trigger starts.
func (w *worker) workTrigger(ctx context.Context, event backbone.Event, t try) (ended bool, again time.Duration) {
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
	w.log.Warn().Err(err).Str("event_id", event.ID).Str("correlation_id", rc.CorrelationID).Dur("again_in_ms", again).Msg("a trigger is tried again")
	return false, again
}

// workDue drives on the instance of due work.
func (w *worker) workDue(ctx context.Context, work backbone.DueWork, t try) (ended bool, again time.Duration) {
	rc := work.Context
	rc.RequestID = contextkit.NewID()
	ctx = contextkit.NewContext(ctx, rc)
	event, i, err := w.engine.resume(ctx, work)
	if err = w.settle(ctx, event, work.Workflow, i, err, t); err == nil {
		return true, 0
	}
	again = retryDelay(t.failed + 1)
	w.log.Warn().Err(err).Str("workflow", work.Workflow).Str("instance", work.Instance).Str("correlation_id", rc.CorrelationID).Dur("again_in_ms", again).Msg("due work is tried again")
	return false, again
}
