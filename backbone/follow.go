package backbone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// followBuffer bounds the events that wait between the network and the
// follower, and so the size of a follower's batch.
const followBuffer = 512

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
	})
	if err != nil {
		return fmt.Errorf("backbone: follow %s: %w", tenant, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(followBuffer))
	if err != nil {
		return fmt.Errorf("backbone: follow %s: %w", tenant, err)
	}
	prepared := make(chan followed[T], followBuffer)
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
			select {
			case prepared <- followed[T]{ready, event.Pending > 0}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		batch := make([]T, 0, followBuffer)
		for {
			var open bool
			if batch, open = gather(batch[:0], prepared, gatherTime); len(batch) > 0 {
				if err := apply(ctx, batch); err != nil {
					return err
				}
			}
			if !open {
				break
			}
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
	more  bool
}

// gather waits for an event, and appends it to batch with those that are there or
// known to come within wait, as many as batch has room for. It reports whether the
// channel is still open.
func gather[T any](batch []T, from <-chan followed[T], wait time.Duration) ([]T, bool) {
	next, open := <-from
	if !open {
		return batch, false
	}
	batch = append(batch, next.value)
	var late <-chan time.Time // nil until there is something to wait for
	for len(batch) < cap(batch) {
		select {
		case next, open = <-from:
		default:
			if !next.more {
				return batch, true
			}
			if late == nil {
				late = time.After(wait)
			}
			select {
			case next, open = <-from:
			case <-late:
				return batch, true
			}
		}
		if !open {
			return batch, false
		}
		batch = append(batch, next.value)
	}
	return batch, true
}
