package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/nats-io/nats.go/jetstream"
)

// Operators' decisions stand in the bucket "runner", under one of these prefixes and the tenant's
// name: under the first until runners take triggers by cursors, under the second since. What is
// written under the first later is for runners of earlier versions alone (see Service.bar).
const (
	pausedPrefix   = "paused."
	pausePrefix    = "pause."
	decidedPaused  = "paused"
	decidedRunning = "running"
)

func pausedKey(tenant contextkit.TenantID) string { return pausedPrefix + tenant.String() }

func pauseKey(tenant contextkit.TenantID) string { return pausePrefix + tenant.String() }

// loadDecisions takes in what operators have decided.
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

// followDecisions takes in what operators tell other runners, until ctx ends.
func (s *Service) followDecisions(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.takeDecisions(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Msg("other runners' decisions are not received; trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartWait):
		}
	}
}

// takeDecisions takes decisions in as they come, those made meanwhile first.
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

// takeDecision takes an entry of the bucket in. They come in the order of their revisions.
func (s *Service) takeDecision(entry jetstream.KeyValueEntry) {
	if entry.Key() == cursorsKey {
		s.setCursorsSince(entry.Revision())
		return
	}
	prefix, name, _ := strings.Cut(entry.Key(), ".")
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil {
		return // not known to this version
	}
	switch prefix + "." {
	case pausedPrefix:
		s.mu.Lock()
		since := s.cursorsSince
		s.mu.Unlock()
		if since != 0 && entry.Revision() > since {
			return // for runners of earlier versions alone
		}
	case pausePrefix:
	default:
		return
	}
	s.decide(tenant, string(entry.Value()) == decidedPaused, entry.Revision())
}

// setCursorsSince takes in that runners take triggers by cursors, by the decision's revision.
func (s *Service) setCursorsSince(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cursorsSince == 0 {
		s.cursorsSince = revision
		s.notify()
	}
}

// decide takes a decision in, unless a later one has been.
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

// storeDecision stores a decision where every runner finds it, and returns its revision.
func (s *Service) storeDecision(ctx context.Context, tenant contextkit.TenantID, decision string) (uint64, error) {
	s.mu.Lock()
	since := s.cursorsSince
	s.mu.Unlock()
	if since == 0 {
		revision, err := backbone.PutKept(ctx, s.js, backbone.BucketRunner, pausedKey(tenant), []byte(decision))
		if err != nil {
			return 0, err
		}
		// Runners may have changed to cursors concurrently: then the other key counts.
		if since, _, err = s.usesCursors(ctx); err != nil || since == 0 {
			return revision, err
		}
		s.setCursorsSince(since)
	}
	return backbone.PutKept(ctx, s.js, backbone.BucketRunner, pauseKey(tenant), []byte(decision))
}

// pause stores a decision first, so that a restart does not forget it.
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
		return nil, connect.NewError(connect.CodeUnavailable, "the decision could not be stored: try again").WithCause(err)
	}
	s.decide(tenant, paused, revision)
	return s.tenantStatus(ctx, tenant)
}
