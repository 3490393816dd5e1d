package audit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/fairqueue"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// window bounds the records that were sent and not acknowledged.
	window = 256
	// attemptTimeout bounds one retry of publishing a record. Pauses between attempts
	// double from firstPause to maxPause.
	attemptTimeout       = 2 * time.Second
	firstPause, maxPause = 500 * time.Millisecond, 2 * time.Second
	// flushTimeout bounds the flush of the queue at the end of the process.
	flushTimeout = 5 * time.Second
	// loggedLosses bounds the lost denials that are logged per second; other lost records are
	// always logged.
	loggedLosses = 10
)

// outbox is a queue of records and its publisher: at most window records are in flight, and each is
// retried until NATS stores it or rejects it permanently.
type outbox struct {
	name     string
	js       jetstream.JetStream
	queue    *fairqueue.Queue[*entry]
	counters *counters
	log      zerolog.Logger
	awaiting atomic.Int64 // when the entry that waits for its acknowledgement was queued, in Unix ns; 0: none
}

// entry is a queued record.
type entry struct {
	rc         contextkit.RequestContext
	subject    string
	data       []byte
	caller     *caller // the caller whose rate is bounded; nil: none
	suppressed int64   // of the record
}

func newOutbox(name string, js jetstream.JetStream, counters *counters, log zerolog.Logger) *outbox {
	counters.begin(name)
	return &outbox{
		name:     name,
		js:       js,
		queue:    fairqueue.New[*entry](bounds),
		counters: counters,
		log:      log,
	}
}

// sent is an entry that was sent.
type sent struct {
	item   fairqueue.Item[*entry]
	msg    *nats.Msg
	future jetstream.PubAckFuture // nil: the entry was not sent, because of err
	err    error
}

// run publishes entries until ctx ends, and then, for at most flushTimeout, the queued ones.
func (o *outbox) run(ctx context.Context) error {
	js, err := natsclient.Async(o.js, window, nil)
	if err != nil {
		return err
	}
	life, end := outliving(ctx)
	defer end()

	// The window bounds the entries that are sent and not acknowledged: those in the channel, the
	// one that awaitAck waits for and the one being sent.
	pending, settled := make(chan sent, window-2), make(chan struct{})
	go func() {
		defer close(settled)
		for s := range pending {
			o.awaitAck(life, js, s)
		}
	}()
	for {
		item, ok := o.next(ctx)
		if !ok {
			break
		}
		pending <- o.send(life, js, item)
	}
	close(pending)
	<-settled
	return nil
}

// outliving returns a context that ends flushTimeout after ctx.
func outliving(ctx context.Context) (context.Context, context.CancelFunc) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(flushTimeout):
			end()
		case <-life.Done():
		}
	})
	return life, func() {
		stop()
		end()
	}
}

// next returns the next entry, and waits for it until ctx ends.
func (o *outbox) next(ctx context.Context) (fairqueue.Item[*entry], bool) {
	if item, err := o.queue.Take(ctx); err == nil {
		return item, true
	}
	return o.queue.TryTake()
}

// send sends an entry.
func (o *outbox) send(ctx context.Context, js jetstream.JetStream, item fairqueue.Item[*entry]) sent {
	e := item.Value
	msg := &nats.Msg{Subject: e.subject, Header: nats.Header{}, Data: e.data}
	rc := e.rc
	rc.Platform = rc.TenantID.IsZero()
	if err := contextkit.InjectNATS(contextkit.NewContext(ctx, rc), msg.Header); err != nil {
		return sent{item: item, err: errors.Join(errNoContract, err)}
	}
	msg.Header.Set(jetstream.MsgIDHeader, contextkit.NewID()) // NATS deduplicates retries by it (dedupe)
	future, err := js.PublishMsgAsync(msg)
	return sent{item, msg, future, err}
}

// errNoContract is the error of a record whose call has no transport contract.
var errNoContract = errors.New("the record's call has no transport contract")

// awaitAck waits until an entry is stored, with retries until ctx ends, or is rejected permanently.
func (o *outbox) awaitAck(ctx context.Context, js jetstream.JetStream, s sent) {
	o.awaiting.Store(s.item.Since.UnixNano())
	defer o.awaiting.Store(0)
	defer o.queue.Release(s.item)
	err := s.err
	if s.future != nil {
		select {
		case <-s.future.Ok():
			return
		case err = <-s.future.Err():
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if reason := refused(err); reason != "" {
		o.recordLoss(s.item.Value, reason, err)
		return
	}
	err = backoff.Retry(ctx, backoff.Delays{First: firstPause, Longest: maxPause}, func(ctx context.Context) error {
		o.counters.retries.WithLabelValues(o.name).Inc()
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		_, err := js.PublishMsg(attempt, s.msg)
		switch {
		case refused(err) != "":
			err = backoff.Permanent(err)
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			o.restore(attempt)
		}
		return err
	})
	if err == nil {
		return
	}
	reason := refused(err)
	if reason == "" {
		reason = reasonEnded
	}
	o.recordLoss(s.item.Value, reason, err)
}

// restore returns to the stream the subjects that a process of an earlier version has removed from
// it.
func (o *outbox) restore(ctx context.Context) {
	switch restored, err := streams.Restore(ctx, o.js, streams.Audit); {
	case err != nil:
		o.log.Warn().Err(err).Str("queue", o.name).Msg("audit stream not restored")
	case restored:
		o.log.Warn().Str("queue", o.name).Str("stream", streams.Audit).Msg(
			"restored the stream's subjects, which a process of an earlier version had removed",
		)
	}
}

// refused returns the reason that a record can never be stored, "" if a retry may succeed.
func refused(err error) lossReason {
	if errors.Is(err, errNoContract) {
		return lossReason(natsclient.RefusedInvalid)
	}
	return lossReason(natsclient.Refused(err))
}

// recordLoss counts and logs an entry that is not stored.
func (o *outbox) recordLoss(e *entry, reason lossReason, err error) {
	o.counters.lost.WithLabelValues(o.name, string(reason)).Inc()
	o.log.Error().Err(
		err,
	).Str("queue", o.name).Str("reason", string(reason)).RawJSON("record", e.data).Msg("audit record not stored")
}

// age returns the age of the oldest queued entry, 0 if there is none.
func (o *outbox) age(now time.Time) time.Duration {
	oldest := o.queue.Stats().Oldest
	if ns := o.awaiting.Load(); ns != 0 { // entries are acknowledged in queue order
		oldest = time.Unix(0, ns)
	}
	if oldest.IsZero() {
		return 0
	}
	return now.Sub(oldest)
}
