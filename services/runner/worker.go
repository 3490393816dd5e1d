package runner

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

const (
	// tenantConcurrency bounds a tenant's instances that are running or wait for their turn, and nodeConcurrency the
	// running instances of all tenants.
	tenantConcurrency, nodeConcurrency = 16, 64
	// ackWait is the time after which JetStream redelivers a message without a heartbeat.
	ackWait = 30 * time.Second
	// heartbeat is the interval at which JetStream is notified that a message is still being processed.
	heartbeat = ackWait / 3
	// workTimeout bounds one attempt at an event, and finishTimeout its remaining time when the worker stops.
	workTimeout, finishTimeout = 2 * time.Minute, 20 * time.Second
	// Delays between attempts double from first to longest, with jitter.
	firstRetry, longestRetry = 250 * time.Millisecond, 10 * time.Minute
)

// worker processes one tenant's trigger events.
type worker struct {
	tenant contextkit.TenantID
	js     jetstream.JetStream
	models *model.Registry
	engine *engine
	starts *starts
	turns  *turns // of all tenants
	// awaits is [Service.awaits].
	awaits func(context.Context, *model.Model, *journal.Event) error
	// obsolete reports whether triggers are read by cursors, so that there are no durable consumers.
	obsolete func(context.Context) (bool, error)
	// unreadable is called for triggers that are not events; they are skipped.
	unreadable func(*journal.UnreadableError)

	log      zerolog.Logger
	finish   time.Duration // see finishTimeout
	inFlight atomic.Int64
	waiting  atomic.Int64 // events that waited when the last one was delivered
}

// consumerName returns the name of the durable consumer of a tenant's trigger events, which is also the name of its
// work in dead letters.
func (w *worker) consumerName() string { return durableName(w.tenant) }

// consumer returns the tenant's consumer, updated to the model in use.
func (w *worker) consumer(ctx context.Context) (jetstream.Consumer, error) {
	var subjects []string
	seen := map[string]bool{}
	for _, workflow := range w.models.Current().Workflows() {
		if !seen[workflow.On.Aggregate] {
			seen[workflow.On.Aggregate] = true
			subjects = append(subjects, streams.EventSubject(w.tenant, workflow.On.Aggregate, "*"))
		}
	}
	if len(subjects) == 0 {
		return nil, nil
	}
	if obsolete, err := w.obsolete(ctx); err != nil || obsolete {
		return nil, err
	}
	consumer, err := w.js.CreateOrUpdateConsumer(ctx, streams.Events, jetstream.ConsumerConfig{
		Durable:        w.consumerName(),
		FilterSubjects: subjects,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        ackWait,
		MaxDeliver:     -1,
		MaxAckPending:  4 * tenantConcurrency,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", w.consumerName(), err)
	}
	return consumer, nil
}

// run processes events and due work until ctx ends, then finishes the running ones. Messages that were
// delivered and not started, or not finished in time, are handed back.
func (w *worker) run(ctx context.Context) error {
	triggers, err := w.consumer(ctx)
	if err != nil {
		return err
	}
	if triggers == nil {
		<-ctx.Done() // the model has no workflow, or triggers are read by cursors
		return nil
	}
	due, err := w.dueConsumer(ctx)
	if err != nil {
		return err
	}
	var working errgroup.Group // of both, so that the tenant has its share once
	working.SetLimit(tenantConcurrency)
	defer func() { _ = working.Wait() }() // the work reports through the messages
	accepting, ctx := errgroup.WithContext(ctx)
	accepting.Go(func() error { return w.take(ctx, triggers, &working, w.work) })
	accepting.Go(func() error { return w.take(ctx, due, &working, w.due) })
	return accepting.Wait()
}

// take processes the consumer's messages until ctx ends.
func (w *worker) take(
	ctx context.Context, consumer jetstream.Consumer, working *errgroup.Group,
	work func(context.Context, jetstream.Msg),
) error {
	name := consumer.CachedInfo().Name
	messages, err := consumer.Messages(jetstream.PullMaxMessages(tenantConcurrency))
	if err != nil {
		return fmt.Errorf("consumer %s: %w", name, err)
	}
	defer messages.Stop()
	defer handBack(messages)
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case err != nil && ctx.Err() != nil, errors.Is(err, jetstream.ErrMsgIteratorClosed):
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			continue // reconnecting to JetStream
		case err != nil:
			return fmt.Errorf("consumer %s: %w", name, err)
		}
		if meta, err := msg.Metadata(); err == nil {
			w.waiting.Store(int64(meta.NumPending))
		}
		working.Go(func() error {
			w.whileAlive(msg, func() { w.inTurn(ctx, msg, work) })
			return nil
		})
	}
}

// inTurn processes a message when it is its tenant's turn. If the worker stops before that, the message is handed
// back; a running one then has a grace period to finish.
func (w *worker) inTurn(accepting context.Context, msg jetstream.Msg, work func(context.Context, jetstream.Msg)) {
	release, err := w.turns.acquire(accepting, w.tenant)
	if err != nil {
		_ = msg.Nak() // if that is lost, ackWait redelivers it
		return
	}
	defer release()
	w.inFlight.Add(1)
	defer w.inFlight.Add(-1)
	ctx, end := gracefulAttempt(accepting, w.finish)
	defer end()
	work(ctx, msg)
}

// newAttempt returns the context of an attempt at an event, which lasts at most workTimeout.
func newAttempt(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, workTimeout)
}

// gracefulAttempt returns the context of an attempt that outlives accepting: by at most finish, and not at all if
// another runner owns the tenant ([errLost]).
func gracefulAttempt(accepting context.Context, finish time.Duration) (ctx context.Context, end func()) {
	ctx, cancel := newAttempt(context.WithoutCancel(accepting))
	stop := context.AfterFunc(accepting, func() {
		if errors.Is(context.Cause(accepting), errLost) {
			cancel()
			return
		}
		select {
		case <-time.After(finish):
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

// handBackWait bounds the wait for each delivered event that was not started.
const handBackWait = 100 * time.Millisecond

// handBack hands back the delivered events that were not started; ackWait redelivers the ones that it misses.
func handBack(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(handBackWait))
		if err != nil {
			return
		}
		_ = msg.Nak() // if that is lost, ackWait redelivers it
	}
}

// work processes one event and acknowledges the message.
func (w *worker) work(ctx context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		w.log.Error().Err(err).Msg("not a message of JetStream")
		return
	}
	event, err := journal.ReadEvent(journal.Message{
		Subject:  msg.Subject(),
		Header:   msg.Headers(),
		Data:     msg.Data(),
		Sequence: meta.Sequence.Stream,
		Time:     meta.Timestamp,
	})
	if unreadable, ok := errors.AsType[*journal.UnreadableError](err); ok {
		w.unreadable(unreadable)
		_ = msg.TermWithReason("no event") // it stays in the journal
		return
	}
	if err := w.awaits(ctx, w.models.Current(), &event); err != nil {
		w.log.Warn().Err(err).Str("event_id", event.ID).Msg("handed back a trigger")
		_ = msg.NakWithDelay(handedBackWait) // if it is lost, ackWait redelivers it
		return
	}
	ended, again := w.workTrigger(ctx, event, try{failed: int(meta.NumDelivered) - 1})
	if !ended {
		_ = msg.NakWithDelay(again) // if it is lost, ackWait redelivers the event
		return
	}
	if err := msg.Ack(); err != nil {
		w.log.Warn().Err(err).Str("event_id", event.ID).Msg("acknowledgement lost, the event will be processed again")
	}
}

// handedBackWait is the delay before a trigger that was handed back is delivered again.
const handedBackWait = 5 * time.Second

// whileAlive calls do, and notifies JetStream in the meantime that the message is being processed.
func (w *worker) whileAlive(msg jetstream.Msg, do func()) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		select {
		case <-done:
			return
		case <-beat.C:
			_ = msg.InProgress() // if it is lost, the message is processed twice, with one effect
		}
	}
}

// try is one attempt at a trigger or at due work.
type try struct {
	// failed is the number of failed attempts before it.
	failed int
	// quick is set if a failed step is retried within the window; unstored counts these retries.
	quick    bool
	unstored *unstored
}

// react runs every workflow that the event starts, and finishes each attempt separately. The error joins those of
// workflows that must be run again.
func (w *worker) react(ctx context.Context, event journal.Event, t try) error {
	var again []error
	m := w.models.Current()
	for _, workflow := range m.Workflows() {
		if workflow.On != (model.EventRef{Aggregate: event.AggregateType, Event: event.Type}) {
			continue
		}
		wanted, err := w.starts.starts(ctx, m, workflow, event)
		if err != nil {
			again = append(again, err)
		}
		if !wanted || err != nil {
			continue
		}
		i, err := w.engine.run(ctx, m, workflow, w.tenant, event)
		if err := w.finishAttempt(ctx, event, workflow.Name, i, err, t); err != nil {
			again = append(again, fmt.Errorf("workflow %s: %w", workflow.Name, err))
		}
	}
	return errors.Join(again...)
}

// finishAttempt ends an attempt at a workflow's instance (nil: it has no record) with the error err: it schedules the
// next attempt, or stores a dead letter. It returns an error if neither was possible or necessary: then the caller
// drives the instance again soon.
func (w *worker) finishAttempt(
	ctx context.Context, event journal.Event, workflow string, i *instance, err error, t try,
) error {
	rc, _ := contextkit.FromContext(ctx) // due work has it, its event has not
	log := w.log.With().Str("workflow", workflow).Str("event_id", event.ID).Str("correlation_id",
		rc.CorrelationID).Logger()
	var failure *stepError
	if i != nil && errors.As(err, &failure) && !final(err) && !errors.Is(ctx.Err(), context.Canceled) {
		before, revision := t.unstored.of(workflow, failure), i.revision
		if failure.quick(i, t, before) {
			t.unstored.add(workflow, failure)
			return err
		}
		postponed := w.engine.postpone(ctx, i, failure, before)
		if i.revision == revision {
			t.unstored.add(workflow, failure)
		} else {
			t.unstored.stored(workflow, failure)
		}
		switch {
		case postponed == nil:
			level := zerolog.WarnLevel
			if _, held := failure.held(); held {
				level = zerolog.DebugLevel // no attempt was made, and the receiver's failures are logged
			}
			log.WithLevel(
				level,
			).Err(
				err,
			).Str("instance",
				i.ID).Int("failed", i.Attempts.Failed).Time("next", i.Attempts.Next).Msg("a step failed, retrying")
			return nil
		case !final(postponed):
			return errors.Join(err, postponed)
		}
		err = postponed
	}
	if err == nil || !final(err) {
		return err
	}
	log.Error().Err(err).Msg("a workflow instance became a dead letter")
	return w.storeDeadLetter(ctx, event, workflow, i, err)
}

// final reports whether another attempt would fail too.
func final(err error) bool {
	return errors.Is(err, errFailed) || errors.Is(err, errStuck) || errors.Is(err, errDepth) ||
		errors.Is(err, errNoRecord) || errors.Is(err, model.ErrEvaluation) ||
		errors.Is(err, journal.ErrMalformedEvent) ||
		errors.Is(err, nats.ErrMaxPayload) // of a record that cannot be stored
}

// storeDeadLetter stores a dead letter of a workflow's instance (nil: it has no record) for an event.
func (w *worker) storeDeadLetter(
	ctx context.Context, event journal.Event, workflow string, i *instance, cause error,
) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	if rc, ok := contextkit.FromContext(ctx); ok {
		rc.Depth = max(0, rc.Depth-1) // the letter has the event's context, and its replay adds its own level
		ctx = contextkit.NewContext(ctx, rc)
	}
	origin := deadletter.Origin{Work: w.consumerName(), Workflow: workflow}
	if i != nil {
		origin.Instance, origin.Revision = i.ID, i.revision
	} else if errors.Is(cause, errNoRecord) {
		origin.Instance = event.ID // see lostTrigger
	}
	err := deadletter.Store(ctx, w.js, w.tenant, event, origin, fmt.Errorf("workflow %s: %w", workflow, cause))
	if err != nil {
		w.log.Error().Err(err).Str("event_id", event.ID).Msg("storing a dead letter failed, retrying the work")
	}
	return err
}

// retryDelay returns the delay after the n-th consecutive failure, from 1. It is exponential, and its upper half is
// jitter.
func retryDelay(attempt int) time.Duration {
	return backoff.Less(backoff.Delays{First: firstRetry, Longest: longestRetry}.After(attempt), 0.5)
}
