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
// one transaction. It returns apply's error, or ctx's.
func (j *Journal) Follow(ctx context.Context, tenant contextkit.TenantID, from uint64, apply func(context.Context, []Event) error) error {
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
	events := make(chan Event, followBuffer)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(events)
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
			select {
			case events <- event:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		batch := make([]Event, 0, followBuffer)
		for event := range events {
			batch = append(batch[:0], event)
			for more := true; more && len(batch) < followBuffer; {
				select {
				case event, ok := <-events:
					if more = ok; ok {
						batch = append(batch, event)
					}
				default:
					more = false
				}
			}
			if err := apply(ctx, batch); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return group.Wait()
}
