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
	if p.due != nil {
		return w.workDue(ctx, p)
	}
	if p.event != nil {
		return w.workTrigger(ctx, *p.event, p.failed+1)
	}
	event, err := o.term.event(ctx, o.tenant, p.sequence)
	switch {
	case errors.Is(err, backbone.ErrMalformedEvent), errors.Is(err, errNoTrigger):
		w.log.Error().Err(err).Uint64("sequence", p.sequence).Msg("a trigger cannot be read and is left out")
		return true, 0
	case err != nil:
		w.log.Warn().Err(err).Uint64("sequence", p.sequence).Msg("a trigger is not read; it is tried again")
		return false, firstRetry
	}
	return w.workTrigger(ctx, event, p.failed+1)
}

// workTrigger does what the model says for a trigger.
func (w *worker) workTrigger(ctx context.Context, event backbone.Event, attempt int) (ended bool, again time.Duration) {
	rc := event.Context
	rc.CausationID = event.ID
	rc.RequestID = contextkit.NewID()
	ctx = contextkit.NewContext(ctx, rc)
	err := w.react(ctx, event)
	log := w.log.With().Str("event_id", event.ID).Str("correlation_id", rc.CorrelationID).Int("attempt", attempt).Logger()
	switch {
	case err == nil:
		return true, 0
	case !final(err) && attempt < maxAttempts:
		again = retryDelay(attempt)
		log.Warn().Err(err).Dur("again_in_ms", again).Msg("workflow is tried again")
		return false, again
	}
	log.Error().Err(err).Msg("workflow trigger becomes a dead letter")
	if w.bury(ctx, event, err) != nil {
		return false, retryDelay(attempt)
	}
	return true, 0
}

// workDue drives on the instance of due work.
func (w *worker) workDue(ctx context.Context, p *piece) (ended bool, again time.Duration) {
	rc := p.due.Context
	rc.RequestID = contextkit.NewID()
	ctx = contextkit.NewContext(ctx, rc)
	event, err := w.engine.resume(ctx, w.models.Current(), w.tenant, p.due.Workflow, p.due.Instance)
	log := w.log.With().Str("workflow", p.due.Workflow).Str("instance", p.due.Instance).Str("correlation_id", rc.CorrelationID).Int("attempt", p.failed+1).Logger()
	switch {
	case err == nil:
	case event.ID != "" && (final(err) || p.failed+1 >= maxAttempts):
		log.Error().Err(err).Msg("due work becomes a dead letter")
		if w.bury(ctx, event, err) != nil {
			return false, retryDelay(p.failed + 1)
		}
	default:
		again = retryDelay(p.failed + 1)
		log.Warn().Err(err).Dur("again_in_ms", again).Msg("due work is tried again")
		return false, again
	}
	if err := backbone.RemoveDueWork(ctx, w.js, p.sequence); err != nil {
		log.Warn().Err(err).Msg("due work is done and not removed; the instance will be looked at again")
		return false, retryDelay(p.failed + 1)
	}
	return true, 0
}
