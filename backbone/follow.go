package backbone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	// pulled bounds the events that have come and have not been prepared.
	pulled = 512
	// followEvents and followBytes bound the events that are prepared and have not been
	// applied; half of that bounds a batch, so that the next one is made ready meanwhile.
	followEvents = 4096
	followBytes  = 32 << 20
	// followIdle is how long a consumer is kept that nobody asks for more.
	followIdle = 30 * time.Second
	// eventBytes is about what an event takes beside its data.
	eventBytes = 2 << 10
)

// gatherTime bounds how long events wait for others that are known to come, to be
// handed over together: a few large transactions cost far less than many small ones.
const gatherTime = 5 * time.Millisecond

// Follow calls apply with the tenant's events, strictly in order, from the
// journal sequence from (1: all) on, until ctx ends or apply fails. Events that
// are waiting are handed over together, so that a follower can commit them in
// one transaction; the last one that there is waits for nothing. prepare is called
// for each event, in order, while those before it may still be applied. It returns
// prepare's or apply's error, or ctx's.
func Follow[T any](ctx context.Context, j *Journal, tenant contextkit.TenantID, from uint64,
	prepare func(context.Context, Event) (T, error), apply func(context.Context, []T) error,
) error {
	consumer, err := j.js.OrderedConsumer(ctx, StreamEvents, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{TenantEvents(tenant)},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    max(from, 1),
		// The server forgets it after that, since to stop following does not tell it.
		InactiveThreshold: followIdle,
	})
	if err != nil {
		return fmt.Errorf("backbone: follow %s: %w", tenant, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pulled))
	if err != nil {
		return fmt.Errorf("backbone: follow %s: %w", tenant, err)
	}
	prepared := make(chan followed[T], followEvents/2)
	room := semaphore.NewWeighted(followBytes)
	var failed error // prepare's; read when prepared is closed
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(prepared)
		defer messages.Stop()
		for {
			msg, err := messages.Next(jetstream.NextContext(ctx))
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if errors.Is(err, jetstream.ErrNoHeartbeat) {
					continue // the ordered consumer resets itself and goes on where it was
				}
				return fmt.Errorf("backbone: follow %s: %w", tenant, err)
			}
			meta, err := msg.Metadata()
			if err != nil {
				return fmt.Errorf("backbone: follow %s: %w", tenant, err)
			}
			event, err := ParseEvent(msg.Headers(), msg.Data(), meta.Sequence.Stream)
			if err != nil {
				return err
			}
			event.Pending = int64(meta.NumPending) //nolint:gosec // far below 2^63
			ready, err := prepare(ctx, event)
			if err != nil {
				failed = err // once those before it have been applied
				return nil
			}
			size := min(int64(len(msg.Data()))+eventBytes, followBytes)
			if err := room.Acquire(ctx, size); err != nil {
				return err
			}
			select {
			case prepared <- followed[T]{ready, size, event.Pending > 0}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		batch := make([]T, 0, followEvents/2)
		for open := true; open; {
			var size int64
			if batch, size, open = gather(batch[:0], prepared, followBytes/2, gatherTime); len(batch) > 0 {
				if err := apply(ctx, batch); err != nil {
					return err
				}
			}
			clear(batch) // nothing holds events that have been applied
			room.Release(size)
		}
		if failed != nil {
			return failed
		}
		return ctx.Err()
	})
	return group.Wait()
}

// followed is a prepared event; more says that others are on their way.
type followed[T any] struct {
	value T
	size  int64 // in bytes
	more  bool
}

// gather waits for an event, and appends it to batch with those that are there or
// known to come within wait, as many as batch has room for and until they are of
// most bytes. It returns their size, and whether the channel is still open.
func gather[T any](batch []T, from <-chan followed[T], most int64, wait time.Duration) (_ []T, size int64, open bool) {
	next, open := <-from
	if !open {
		return batch, 0, false
	}
	batch, size = append(batch, next.value), next.size
	var late <-chan time.Time // nil until there is something to wait for
	for len(batch) < cap(batch) && size < most {
		select {
		case next, open = <-from:
		default:
			if !next.more {
				return batch, size, true
			}
			if late == nil {
				late = time.After(wait)
			}
			select {
			case next, open = <-from:
			case <-late:
				return batch, size, true
			}
		}
		if !open {
			return batch, size, false
		}
		batch, size = append(batch, next.value), size+next.size
	}
	return batch, size, true
}
