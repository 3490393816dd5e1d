package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Operators' decisions are stored in the bucket "runner" under one of these prefixes and the tenant's name: under the
// first until runners read triggers by cursors, under the second since. Later entries under the first are only for
// runners of earlier versions (see Service.blockEarlierRunners).
const (
	pausedPrefix   = "paused."
	pausePrefix    = "pause."
	decidedPaused  = "paused"
	decidedRunning = "running"
)

func pausedKey(tenant contextkit.TenantID) string { return pausedPrefix + tenant.String() }

func pauseKey(tenant contextkit.TenantID) string { return pausePrefix + tenant.String() }

// loadDecisions reads the decisions of operators.
func (s *Service) loadDecisions(ctx context.Context) error {
	decisions, err := s.decisions.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("read operators' decisions: %w", err)
	}
	defer func() { _ = decisions.Stop() }() // it ends with ctx anyway
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("read operators' decisions: %w", context.Cause(ctx))
		case entry, open := <-decisions.Updates():
			switch {
			case !open:
				return errors.New("read operators' decisions: the watch has ended")
			case entry == nil:
				return nil
			}
			s.takeDecision(entry)
		}
	}
}

// followDecisions receives decisions that operators send to other runners, until ctx ends.
func (s *Service) followDecisions(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.takeDecisions(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Msg("receiving operators' decisions failed, retrying")
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartWait):
		}
	}
}

// takeDecisions applies decisions as they arrive, including those made in the meantime.
func (s *Service) takeDecisions(ctx context.Context) error {
	decisions, err := s.decisions.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = decisions.Stop() }() // it ends with ctx anyway
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, open := <-decisions.Updates():
			if !open && ctx.Err() != nil {
				return nil
			}
			if !open {
				return errors.New("the watch has ended")
			}
			if entry != nil {
				s.takeDecision(entry)
			}
		}
	}
}

// takeDecision applies an entry of the bucket. Entries arrive in the order of their KV revisions.
func (s *Service) takeDecision(entry jetstream.KeyValueEntry) {
	if entry.Key() == cursorsKey {
		s.setCursorsSince(entry.Revision())
		return
	}
	prefix, name, _ := strings.Cut(entry.Key(), ".")
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil {
		return // unknown to this version
	}
	switch prefix + "." {
	case pausedPrefix:
		s.mu.Lock()
		since := s.cursorsSince
		s.mu.Unlock()
		if since != 0 && entry.Revision() > since {
			return // only for runners of earlier versions
		}
	case pausePrefix:
	default:
		return
	}
	s.decide(tenant, string(entry.Value()) == decidedPaused, entry.Revision())
}

// setCursorsSince records the KV revision of the decision that runners read triggers by cursors.
func (s *Service) setCursorsSince(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cursorsSince == 0 {
		s.cursorsSince = revision
		s.notify()
	}
}

// decide applies a decision, unless a later one was applied.
func (s *Service) decide(tenant contextkit.TenantID, paused bool, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision <= s.decided[tenant] {
		return
	}
	s.decided[tenant] = revision
	if s.paused[tenant] != paused {
		s.paused[tenant] = paused
		s.notify()
	}
}

// storeDecision stores a decision for all runners, and returns its KV revision.
func (s *Service) storeDecision(ctx context.Context, tenant contextkit.TenantID, decision string) (uint64, error) {
	s.mu.Lock()
	since := s.cursorsSince
	s.mu.Unlock()
	if since == 0 {
		revision, err := kv.Put(ctx, s.js, streams.BucketRunner, pausedKey(tenant), []byte(decision))
		if err != nil {
			return 0, err
		}
		// Runners may have switched to cursors concurrently: then the other key applies.
		if since, _, err = s.usesCursors(ctx); err != nil || since == 0 {
			return revision, err
		}
		s.setCursorsSince(since)
	}
	return kv.Put(ctx, s.js, streams.BucketRunner, pauseKey(tenant), []byte(decision))
}

// pause stores the decision first, so that it survives a restart.
func (s *Service) pause(ctx context.Context, field string, paused bool) (*adminv1.TenantStatus, error) {
	tenant, err := s.tenants.Of(ctx, field)
	if err != nil {
		return nil, err
	}
	decision := decidedRunning
	if paused {
		decision = decidedPaused
	}
	revision, err := s.storeDecision(ctx, tenant, decision)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the decision could not be stored: retry").WithCause(err)
	}
	s.decide(tenant, paused, revision)
	return s.tenantStatus(ctx, tenant)
}
