package audit

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/fairqueue"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

const (
	// window bounds the records that were sent and are not acknowledged yet.
	window = 256
	// attemptTimeout bounds one retry of publishing a record. Pauses between attempts
	// double from firstPause to maxPause.
	attemptTimeout           = 2 * time.Second
	firstPause, maxPause = 500 * time.Millisecond, 2 * time.Second
	// flushTimeout bounds how long the end of the process waits for the queue.
	flushTimeout = 5 * time.Second
	// loggedLosses bounds the lost denials that are logged per second; other lost records are
	// all logged.
	loggedLosses = 10
)

// outbox is a queue of records and its publisher: at most window records are in flight, and
// each is retried until NATS stores it or refuses it permanently.
type outbox struct {
	name     string
	js       jetstream.JetStream
	queue    *fairqueue.Queue[*entry]
	counters *counters
	log      zerolog.Logger
	awaiting atomic.Int64 // when the entry that is being settled was queued, in Unix ns; 0: none is
}

// entry is a record that waits.
type entry struct {
	rc         contextkit.RequestContext
	subject    string
	data       []byte
	caller     *caller // whose rate is bounded; nil: none
	suppressed int64   // the record's
}

func newOutbox(name string, js jetstream.JetStream, counters *counters, log zerolog.Logger) *outbox {
	counters.begin(name)
	return &outbox{
		name: name, js: js, queue: fairqueue.New[*entry](bounds), counters: counters, log: log,
	}
}

// sent is an entry on its way.
type sent struct {
	item   fairqueue.Item[*entry]
	msg    *nats.Msg
	future jetstream.PubAckFuture // nil: the entry was not sent, because of err
	err    error
}

// run publishes entries until ctx ends, and then, for at most flushTimeout, the entries that
// wait.
func (o *outbox) run(ctx context.Context) error {
	js, err := backbone.Async(o.js, window, nil)
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	flush := time.AfterFunc(math.MaxInt64, end)
	defer flush.Stop()
	defer context.AfterFunc(ctx, func() { flush.Reset(flushTimeout) })()

	// The window bounds the entries that are sent and not settled: those in the channel, the
	// one being settled and the one being sent.
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

// next returns the next entry, waiting for one until ctx ends.
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
	msg.Header.Set(jetstream.MsgIDHeader, contextkit.NewID()) // a retry makes no second record
	future, err := js.PublishMsgAsync(msg)
	return sent{item, msg, future, err}
}

// errNoContract says that a record cannot be published because its call has no transport
// contract.
var errNoContract = errors.New("the record's call carries no context")

// settle waits until an entry is stored, with retries until ctx ends, or is refused
// permanently.
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

// restore gives the stream back the subjects that a process of an earlier version has taken
// from it.
func (o *outbox) restore(ctx context.Context) {
	switch restored, err := backbone.RestoreStream(ctx, o.js, backbone.StreamAudit); {
	case err != nil:
		o.log.Warn().Err(err).Str("queue", o.name).Msg("audit stream not restored")
	case restored:
		o.log.Warn().Str("queue", o.name).Str("stream", backbone.StreamAudit).Msg("a process of an earlier version had taken subjects from the stream; it has them again")
	}
}

// refused returns why a record can never be stored, "" if a retry may succeed.
func refused(err error) string {
	if errors.Is(err, errNoContract) {
		return backbone.RefusedInvalid
	}
	return backbone.Refused(err)
}

// lose counts and logs an entry that is not stored.
func (o *outbox) recordLoss(e *entry, reason string, err error) {
	o.counters.lost.WithLabelValues(o.name, reason).Inc()
	o.log.Error().Err(err).Str("queue", o.name).Str("reason", reason).RawJSON("record", e.data).Msg("audit record not stored")
}

// age returns how long the oldest entry has been in the queue, 0 if there is none.
func (o *outbox) age(now time.Time) time.Duration {
	oldest := o.queue.Stats().Oldest
	if ns := o.awaiting.Load(); ns != 0 { // entries are settled in the order in which they were taken
		oldest = time.Unix(0, ns)
	}
	if oldest.IsZero() {
		return 0
	}
	return now.Sub(oldest)
}
