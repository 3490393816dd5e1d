package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Ensure creates missing streams and buckets and updates streams that differ from their
// definition, concurrently: it waits for each stream that has no leader. It may be
// called by every node at start.
//
// A failure of TIMELINE, which only records what calls have caused, is not an error: a
// [timeline.Recorder] creates the stream when it can. Error: [ErrJournalMissing], unless options have
// [NewJournal], and [ErrRestoring], unless they have [Restoring].
func Ensure(ctx context.Context, js jetstream.JetStream, replicas streams.Replicas, options ...Option) error {
	var chosen ensureOptions
	for _, option := range options {
		option(&chosen)
	}
	if !chosen.restoring {
		if err := checkRestored(ctx, js); err != nil {
			return err
		}
	}
	if err := natsclient.Patiently(
		ctx, func(ctx context.Context) error { return streams.CheckFormats(ctx, js) },
	); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if err := streams.ReleaseReservation(ctx, js); err != nil {
		return err
	}
	replaced, err := ensureJournal(ctx, js, replicas, chosen)
	if err != nil {
		return err
	}
	timeline, cancel := context.WithCancel(ctx)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	recorded := make(chan struct{})
	for _, config := range streams.Definitions() {
		config = streams.Stored(config, replicas)
		if config.Name == streams.Timeline {
			go func() {
				defer close(recorded)
				_ = natsclient.Patiently(timeline,
					func(ctx context.Context) error { return streams.Ensure(ctx, js, config) })
			}()
			continue
		}
		all.Go(func() error {
			if err := natsclient.Patiently(
				ctx, func(ctx context.Context) error { return streams.Ensure(ctx, js, config) },
			); err != nil {
				return fmt.Errorf("setup: stream %s: %w", config.Name, err)
			}
			return nil
		})
	}
	err = all.Wait()
	if err == nil && replaced {
		if _, err = journal.AcceptLoss(
			contextkit.PlatformContext(timeline), js, "", "a new journal was asked for at start",
		); errors.Is(err, journal.ErrNoLoss) {
			err = nil // of the former one nothing was recorded
		}
	}
	if err == nil {
		select {
		case <-recorded:
		case <-time.After(natsclient.AttemptTimeout):
		}
	}
	cancel()
	<-recorded
	return err
}
