package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
)

// Earlier versions have a durable consumer per tenant on EVENTS, shared by all runners, and one on WORK. While a
// runner of such a version is announced, this version uses them too (runDurables). Once none is, all runners
// permanently switch to reading triggers by cursors (see [Service.awaitCursors]). Triggers that the durable consumers
// had delivered by then are still read from them (owned.drainDurable), and some time later they are deleted
// (deleteDurables).

const (
	// durablePrefix and duePrefix are the prefixes of the names of consumers of earlier versions.
	durablePrefix, duePrefix = "runner-", "due-"
	// durableRetention is the time for which unused consumers are retained, so that a runner of an earlier version
	// that was suspended finds its consumer, instead of creating one that delivers all events from the start.
	durableRetention = 10 * time.Minute
	// drainPause is the interval between two reads of a consumer that redelivers later.
	drainPause = time.Second
)

// durableName returns the name of a tenant's durable consumer of trigger events.
func durableName(tenant contextkit.TenantID) string { return durablePrefix + tenant.String() }

// runDurables starts and stops workers as requested by Drain, PauseTenant, Reload and their opposites, until ctx
// ends. running tracks the workers, which may still finish their work then.
func (s *Service) runDurables(ctx context.Context, running *sync.WaitGroup) {
	for ctx.Err() == nil {
		served, models := s.tenants.Changed(), s.models.Changed()
		s.mu.Lock()
		changed := s.changed
		for _, tenant := range s.tenants.All() {
			s.reconcile(ctx, tenant, running)
		}
		for tenant := range s.active {
			if !s.tenants.Serves(tenant) {
				s.reconcile(ctx, tenant, running)
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-served:
		case <-models:
			s.noteStarts(ctx)
			s.renew(ctx)
		case <-ctx.Done():
		}
	}
}

// renew subscribes the durable consumers to the triggers of the model in use.
func (s *Service) renew(ctx context.Context) {
	for _, tenant := range s.tenants.All() {
		if _, err := s.worker(tenant).consumer(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg(
				"subscribing to the triggers of the new model failed",
			)
		}
	}
}

// loadDurables reads which tenants have a durable consumer of an earlier version.
func (s *Service) loadDurables(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, streams.Events)
	if err != nil {
		return err
	}
	durables := map[string]bool{}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		if tenant, ours := strings.CutPrefix(name, durablePrefix); ours {
			durables[tenant] = true
		}
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("list consumers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durables = durables
	return nil
}

func (s *Service) hasDurable(tenant contextkit.TenantID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durables[tenant.String()]
}

// drainDurable processes the triggers that the tenant's durable consumer had delivered, without an acknowledgement,
// when the tenant's cursor was created, so that they are neither lost nor processed twice. Later ones are
// acknowledged unread, since the cursor covers them.
func (o *owned) drainDurable(ctx context.Context) {
	w := o.term.service.worker(o.tenant)
	for ctx.Err() == nil {
		done, err := o.drainOnce(ctx, w)
		if err != nil && ctx.Err() == nil {
			w.log.Warn().Err(err).Msg("reading triggers of an earlier version's consumer failed, retrying")
		}
		if done {
			o.mu.Lock()
			o.stored.Durable, o.draining = 0, false
			o.touch()
			o.mu.Unlock()
			return
		}
		select {
		case <-time.After(drainPause):
		case <-ctx.Done():
		}
	}
}

// drainOnce processes the messages that the consumer delivers now, and reports whether all are acknowledged.
func (o *owned) drainOnce(ctx context.Context, w *worker) (done bool, err error) {
	o.mu.Lock()
	until := o.stored.Durable
	o.mu.Unlock()
	consumer, err := w.js.Consumer(ctx, streams.Events, durableName(o.tenant))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if consumer.CachedInfo().AckFloor.Stream >= until {
		return true, nil
	}
	messages, err := consumer.FetchNoWait(tenantConcurrency)
	if err != nil {
		return false, err
	}
	var working sync.WaitGroup
	defer working.Wait()
	for msg := range messages.Messages() {
		if meta, err := msg.Metadata(); err == nil && meta.Sequence.Stream > until {
			_ = msg.Ack() // if it is lost, the message is delivered and acknowledged again
			continue
		}
		working.Go(func() { w.whileAlive(msg, func() { w.inTurn(ctx, msg, w.work) }) })
	}
	return false, messages.Error()
}

// deleteDurablesLater deletes the consumers of earlier versions after durableRetention, and returns when there are
// none.
func (s *Service) deleteDurablesLater(ctx context.Context) error {
	revision, since, err := s.usesCursors(ctx)
	if err != nil || revision == 0 {
		return err
	}
	for {
		var left int
		if wait := durableRetention - time.Since(since); wait <= 0 {
			if left, err = s.deleteDurables(ctx, true); err != nil {
				return err
			}
		} else if left, err = s.deleteDurables(ctx, false); err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-time.After(durableRetention):
		case <-ctx.Done():
			return nil
		}
	}
}

// deleteDurables deletes the consumers of earlier versions whose tenants have cursors, if remove is set, and returns
// the number of remaining ones.
func (s *Service) deleteDurables(ctx context.Context, remove bool) (left int, err error) {
	all, err := s.cursors.All(ctx)
	if err != nil {
		return 0, err
	}
	for stream, prefix := range map[string]string{streams.Events: durablePrefix, streams.Work: duePrefix} {
		handle, err := s.js.Stream(ctx, stream)
		if err != nil {
			return 0, err
		}
		var obsolete []string
		names := handle.ConsumerNames(ctx)
		for name := range names.Name() {
			tenant, ours := strings.CutPrefix(name, prefix)
			if !ours {
				continue
			}
			left++
			if kept, moved := all[tenant]; remove && moved && kept.Value.Durable == 0 {
				obsolete = append(obsolete, name)
			}
		}
		if err := names.Err(); err != nil {
			return 0, err
		}
		for _, name := range obsolete {
			if err := handle.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return 0, err
			}
			left--
			s.log.Info().Str("consumer", name).Msg("deleted a consumer of an earlier version")
		}
	}
	return left, nil
}
