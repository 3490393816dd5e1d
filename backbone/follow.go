package backbone

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// followBuffer bounds the events that wait between the network and the
// follower, and so the size of a follower's batch.
const followBuffer = 512

// Follow calls apply with the tenant's events, strictly in order, from the
// journal sequence from (1: all) on, until ctx ends or apply fails. Events that
// are waiting are handed over together, so that a follower can commit them in
// one transaction. prepare is called for each event, in order, while those before
// it may still be applied. It returns prepare's or apply's error, or ctx's.
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
	prepared := make(chan T, followBuffer)
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
			case prepared <- ready:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		batch := make([]T, 0, followBuffer)
		for first := range prepared {
			batch = append(batch[:0], first)
			for more := true; more && len(batch) < followBuffer; {
				select {
				case next, ok := <-prepared:
					if more = ok; ok {
						batch = append(batch, next)
					}
				default:
					more = false
				}
			}
			if err := apply(ctx, batch); err != nil {
				return err
			}
		}
		if failed != nil {
			return failed
		}
		return ctx.Err()
	})
	return group.Wait()
}
