package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

// Earlier versions have a durable consumer per tenant on EVENTS, shared by all runners, and one on
// WORK. While a runner of such a version is announced, this one does the same (runDurables).
// Once none is, runners take triggers by cursors, for good (see [Service.awaitCursors]); what the
// durable consumers had delivered then is still taken from them (owned.drainDurable), and some
// time later they are deleted (deleteDurables).

const (
	// durablePrefix and duePrefix begin the names of the consumers of earlier versions.
	durablePrefix, duePrefix = "runner-", "due-"
	// durablesKept is how long these consumers outlive their use: a runner of an earlier version
	// that stood still finds its consumer, and not a new one that delivers all from the start.
	durablesKept = 10 * time.Minute
	// drainPause is the time between two looks at a consumer that delivers again later.
	drainPause = time.Second
)

// durableName returns the name of a tenant's durable consumer of trigger events.
func durableName(tenant contextkit.TenantID) string { return durablePrefix + tenant.String() }

// runDurables starts and stops workers as Drain, PauseTenant, Reload and their opposites ask,
// until ctx ends. running are the workers, which may still finish their work then.
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

// renew has the durable consumers deliver what the model in use asks for.
func (s *Service) renew(ctx context.Context) {
	for _, tenant := range s.tenants.All() {
		if _, err := s.worker(tenant).consumer(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg("the journal does not deliver by the new model yet")
		}
	}
}

// loadDurables reads which tenants have a durable consumer of an earlier version.
func (s *Service) loadDurables(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, backbone.StreamEvents)
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

// drainDurable works on the triggers that the tenant's durable consumer had delivered when the
// tenant's cursor was made, and that nobody has acknowledged: those are neither lost nor worked
// on twice. Later ones are acknowledged unread, since the cursor comes to them.
func (o *owned) drainDurable(ctx context.Context) {
	w := o.term.service.worker(o.tenant)
	for ctx.Err() == nil {
		done, err := o.drainOnce(ctx, w)
		if err != nil && ctx.Err() == nil {
			w.log.Warn().Err(err).Msg("the triggers that an earlier version has begun are not read; trying again")
		}
		if done {
			o.mu.Lock()
			o.stored.Durable, o.drains = 0, false
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

// drainOnce takes what the consumer delivers now, and reports whether all is acknowledged.
func (o *owned) drainOnce(ctx context.Context, w *worker) (done bool, err error) {
	o.mu.Lock()
	until := o.stored.Durable
	o.mu.Unlock()
	consumer, err := w.js.Consumer(ctx, backbone.StreamEvents, durableName(o.tenant))
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
			_ = msg.Ack() // if it is lost, it is delivered and acknowledged again
			continue
		}
		working.Go(func() { w.whileAlive(msg, func() { w.inTurn(ctx, msg, w.work) }) })
	}
	return false, messages.Error()
}

// deleteDurablesLater deletes the consumers of earlier versions once they have outlived their use,
// and returns when there are none.
func (s *Service) deleteDurablesLater(ctx context.Context) error {
	revision, since, err := s.usesCursors(ctx)
	if err != nil || revision == 0 {
		return err
	}
	for {
		var left int
		if wait := durablesKept - time.Since(since); wait <= 0 {
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
		case <-time.After(durablesKept):
		case <-ctx.Done():
			return nil
		}
	}
}

// deleteDurables deletes the consumers of earlier versions whose tenants have cursors, if remove
// is set, and returns the number of those that are left.
func (s *Service) deleteDurables(ctx context.Context, remove bool) (left int, err error) {
	all, err := s.cursors.All(ctx)
	if err != nil {
		return 0, err
	}
	for stream, prefix := range map[string]string{backbone.StreamEvents: durablePrefix, backbone.StreamWork: duePrefix} {
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
			s.log.Info().Str("consumer", name).Msg("a consumer of an earlier version is deleted")
		}
	}
	return left, nil
}
