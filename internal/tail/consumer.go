package tail

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// pulledMessages and pulledBytes bound the messages of one pull request.
	pulledMessages, pulledBytes = 512, 2 * streams.MaxMessageBytes
	// heartbeat is the interval at which the server confirms that an idle consumer exists.
	heartbeat = 5 * time.Second
	// checkEvery is the interval at which an idle consumer is checked for lost messages, and inFlight the longest time
	// that a message takes from the server to this process.
	checkEvery, inFlight = 10 * time.Second, 2 * time.Second
	// inactive is the time after which the server deletes a consumer that is not read.
	inactive = 30 * time.Second
	// checkTimeout bounds requests about a stream or a consumer.
	checkTimeout = 5 * time.Second
)

// pauses are the delays before a consumer that failed is created again.
var pauses = backoff.Delays{First: 100 * time.Millisecond, Longest: time.Second}

// errGap reports that messages of a consumer were lost between NATS and this process.
var errGap = errors.New("messages were lost on their way from NATS")

// consume creates a consumer and calls each for its messages, from a sequence on, until each returns false or ctx ends.
// It delivers messages without gaps: it returns an error if messages were lost, or may have been lost with the
// connection.
func (t *Tail) consume(
	ctx context.Context, kind string, subjects []string, from uint64, each func(message) bool,
) error {
	return t.journal.While(ctx, func(ctx context.Context) error {
		consumer, err := t.js.CreateConsumer(ctx, streams.Events, jetstream.ConsumerConfig{
			Name:              t.config.Name + "-" + kind + "-" + contextkit.NewID(),
			FilterSubjects:    subjects,
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       max(from, 1),
			AckPolicy:         jetstream.AckNonePolicy,
			InactiveThreshold: inactive,
			MemoryStorage:     true,
			Replicas:          1,
		})
		if err != nil {
			return fmt.Errorf("make a consumer: %w", err)
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
			defer cancel()
			_ = t.js.DeleteConsumer(ctx, streams.Events,
				consumer.CachedInfo().Name) // on an error, the server deletes it after InactiveThreshold
		}()
		return t.receive(ctx, consumer, each)
	})
}

// errEnough ends the reading of a consumer when each has returned false.
var errEnough = errors.New("no further message is needed")

// receive calls each for a consumer's messages. It uses [jetstream.Consumer.Consume], whose subscription has no
// channel, and not [jetstream.Consumer.Messages]: its channel has the capacity of the requested messages, so that the
// client drops a message if a heartbeat arrives in addition.
func (t *Tail) receive(ctx context.Context, consumer jetstream.Consumer, each func(message) bool) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var (
		received atomic.Uint64
		taking   atomic.Bool // each is being called, so messages may be waiting
		calling  sync.Mutex  // held while each is called
		checking sync.WaitGroup
	)
	take := func(msg jetstream.Msg) error {
		m, err := newMessage(msg)
		if err != nil {
			return err
		}
		if m.delivery != received.Load()+1 {
			return errGap
		}
		received.Add(1)
		taking.Store(true)
		defer taking.Store(false)
		if !each(m) {
			return errEnough
		}
		return nil
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		calling.Lock()
		defer calling.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err := take(msg); err != nil {
			end(err)
		}
	}, jetstream.PullMaxMessagesWithBytesLimit(pulledMessages, pulledBytes), jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if !errors.Is(err, jetstream.ErrConsumerLeadershipChanged) {
				end(err) // also ErrNoHeartbeat: messages that are requested again may arrive twice
			}
		}))
	if err != nil {
		return fmt.Errorf("read a consumer: %w", err)
	}
	checking.Go(func() { t.checkLoss(ctx, consumer, &received, &taking, end) })
	<-ctx.Done()
	consuming.Stop()
	checking.Wait()
	calling.Lock() // wait for the last call of each
	defer calling.Unlock()
	if err := context.Cause(ctx); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// checkLoss detects that the last messages were lost, which no later message reveals: it then calls lose with [errGap].
// It runs until ctx ends.
func (t *Tail) checkLoss(
	ctx context.Context, consumer jetstream.Consumer, received *atomic.Uint64, taking *atomic.Bool,
	lose context.CancelCauseFunc,
) {
	ticker := time.NewTicker(t.checkEvery)
	defer ticker.Stop()
	for before := uint64(0); ; before = received.Load() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if received.Load() != before || taking.Load() {
			continue
		}
		check, cancel := context.WithTimeout(ctx, checkTimeout)
		info, err := consumer.Info(check)
		cancel()
		if err != nil || info.Delivered.Consumer == received.Load() {
			continue // missing heartbeats show that the consumer has been deleted
		}
		select {
		case <-time.After(t.inFlight):
		case <-ctx.Done():
			return
		}
		if received.Load() == before && !taking.Load() {
			lose(errGap)
			return
		}
	}
}

// stream returns the state of the journal's stream, as reported by its leader.
func (t *Tail) stream(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	stream, err := t.js.Stream(ctx, streams.Events)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// follow reads new messages until ctx ends.
func (t *Tail) follow(ctx context.Context) error {
	logged := "" // the last logged failure
	for pause := pauses.First; ; pause = pauses.Next(pause) {
		before, judged := t.Position(), t.journal.Integrity().Changed()
		err := t.read(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is no failure
		}
		if t.Position() != before {
			pause, logged = pauses.First, ""
		}
		if err == nil {
			continue // the subjects or the epoch have changed
		}
		t.mu.Lock()
		t.failure, t.unsure = err, true
		t.mu.Unlock()
		if text := err.Error(); text != logged {
			logged = text
			t.config.Log.Warn().Err(err).Dur("again_in_ms", pause).Uint64("position", t.Position()).Msg(
				"reading the journal's tail was interrupted; retrying",
			)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-judged: // an operator may have accepted a loss
		case <-time.After(pause):
		}
	}
}

// read dispatches new messages until the consumer fails, and returns the error. It returns nil if the subjects or the
// journal's epoch change.
func (t *Tail) read(ctx context.Context) error {
	judged, epoch := t.journal.Integrity().Changed(), t.journal.Epoch()
	from, subjects, changed, err := t.open(ctx, epoch)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer cancel()
		for t.journal.Epoch() == epoch {
			select {
			case <-changed:
				return
			case <-judged:
				judged = t.journal.Integrity().Changed()
			case <-stop:
				return
			}
		}
	}()
	err = t.consume(ctx, "tail", subjects, from, func(m message) bool { return t.dispatch(m, changed) })
	select {
	case <-changed:
		return nil
	default:
	}
	if t.journal.Epoch() != epoch {
		return nil
	}
	return err
}

// open checks that the journal with this epoch continues what was read before, and returns the sequence and the
// subjects from which to read. changed is closed when the subjects change.
func (t *Tail) open(ctx context.Context, epoch int64) (
	from uint64, subjects []string, changed chan struct{}, err error,
) {
	info, err := t.stream(ctx)
	if err != nil {
		return 0, nil, nil, err
	}
	broken, err := t.compare(ctx, epoch, info)
	if err != nil {
		return 0, nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken = broken != nil; t.broken {
		return 0, nil, nil, broken
	}
	if t.epoch != epoch {
		// The first start, or an operator has accepted the loss of events.
		t.position, t.newest = info.State.LastSeq-min(info.State.LastSeq, overlap), message{}
		for _, entry := range t.tenants {
			entry.newest = 0
			for _, s := range entry.subs {
				if t.epoch != 0 {
					s.newest, s.asked, s.missed = 0, false, 0
					s.renew()
				}
			}
		}
		t.epoch, t.created = epoch, info.Created
	}
	t.failure, t.unsure = nil, false
	t.work()
	return t.position + 1, t.config.Subjects, t.subjects, nil
}

// compare compares the journal with this epoch with what was read from it before. broken is nil if the journal
// continues it, and otherwise [ErrReplaced], [ErrShorter] or [ErrDiverged]; compare reports the latter two as damage.
// Only follow may call it, because follow changes the position.
func (t *Tail) compare(ctx context.Context, epoch int64, info *jetstream.StreamInfo) (broken, err error) {
	t.mu.Lock()
	known, position, newest, created := t.epoch, t.position, t.newest, t.created
	t.mu.Unlock()
	switch {
	case known == 0 || known != epoch:
		return nil, nil
	case !info.Created.Equal(created):
		return ErrReplaced, nil
	case info.State.LastSeq < position:
		t.journal.Integrity().Reached(epoch, position, "more of it has been read")
		return fmt.Errorf("%w: at %d, after %d", ErrShorter, info.State.LastSeq, position), nil
	case newest.sequence == 0:
		return nil, nil
	}
	place, err := t.journal.PlaceAt(ctx, newest.sequence)
	if err != nil || place.Sequence == 0 || place.MessageID == journal.MessageID(newest.header, newest.sequence) {
		return nil, err
	}
	t.journal.Integrity().Diverged(epoch, newest.sequence, "another event has been read from it at that sequence")
	return fmt.Errorf("%w: %d", ErrDiverged, newest.sequence), nil
}

// Err returns why no events are delivered: [ErrReplaced], [ErrShorter], [ErrDiverged], or the error of reading the
// journal; nil: events are delivered.
func (t *Tail) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

// End returns the sequence of the journal's last message.
func (t *Tail) End(ctx context.Context) (uint64, error) {
	info, err := t.stream(ctx)
	if err != nil {
		return 0, fmt.Errorf("tail: %w", err)
	}
	return info.State.LastSeq, nil
}
