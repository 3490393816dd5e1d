package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Abilities of runners, as announced ([fleet.Node.Runner]).
const (
	canCursors  = 1 // read triggers by cursors
	canByEvents = 2 // name instances by their events, in a bucket without age

	// Abilities is the newest ability of this version.
	Abilities = canByEvents
)

// cursorsKey is the key in the bucket "runner" under which the decision to read triggers by cursors is stored. It is
// written once and never removed.
const cursorsKey = "cursors"

// settlePeriod is the time for which every announced runner must have the ability before runners switch, if there are
// consumers of an earlier version: a runner that is being restarted returns within it.
const settlePeriod = 10 * time.Second

// recentlyLost is the time for which a runner that stopped announcing is expected to return.
const recentlyLost = 10 * time.Minute

// usesCursors returns the KV revision of the decision to read triggers by cursors, 0 if it is not decided, and its
// time.
func (s *Service) usesCursors(ctx context.Context) (revision uint64, since time.Time, err error) {
	kept, err := kv.Read(ctx, s.js, streams.BucketRunner, cursorsKey)
	if errors.Is(err, kv.ErrNotFound) {
		return 0, time.Time{}, nil
	}
	return kept.Revision, kept.Time, err
}

// awaitCursors waits until runners read triggers by cursors, and makes that decision once every announced runner can,
// or returns ctx's error.
func (s *Service) awaitCursors(ctx context.Context) error {
	for {
		able, changed := s.allAble()
		if decided, err := s.decideCursors(ctx, able); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("reading how triggers are delivered failed, retrying")
		} else if decided {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(restartWait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decideCursors reports whether runners read triggers by cursors, and makes that decision if it is time.
func (s *Service) decideCursors(ctx context.Context, able time.Duration) (bool, error) {
	revision, _, err := s.usesCursors(ctx)
	if err == nil && revision == 0 && able > 0 {
		if err = s.loadDurables(ctx); err != nil {
			return false, err
		}
		s.mu.Lock()
		fresh := len(s.durables) == 0
		s.mu.Unlock()
		if !fresh && able < s.settled {
			return false, nil
		}
		s.log.Info().Msg("all runners read triggers by cursors from now on")
		if _, err = s.flags.Put(contextkit.PlatformContext(ctx), cursorsKey, s.node, 0); err != nil &&
			!errors.Is(err, kv.ErrChanged) {
			return false, err
		}
		revision, _, err = s.usesCursors(ctx)
	}
	if err != nil || revision == 0 {
		return false, err
	}
	s.setCursorsSince(revision)
	return true, nil
}

// allAble returns the time for which every announced or recently lost runner has been able to read triggers by
// cursors, 0 if one is not, and a channel that is closed at the next announcement.
func (s *Service) allAble() (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ableSince.IsZero() {
		return 0, s.changed
	}
	return max(time.Since(s.ableSince), 1), s.changed
}

// setNodes records the announced nodes.
func (s *Service) setNodes(fleet fleet.Fleet) {
	announced, able, byEvents := map[string][]string{}, true, true
	for _, n := range fleet.Nodes {
		if n.Kind == contextkit.KindRunner {
			announced[n.ID] = n.Tenants
			able = able && (n.Runner >= canCursors || n.ID == s.node)
			byEvents = byEvents && (n.Runner >= canByEvents || n.ID == s.node)
		}
	}
	for _, l := range fleet.Lost {
		if time.Since(l.LastAnnounced) > recentlyLost {
			continue
		}
		if _, back := announced[l.Node.ID]; l.Node.Kind == contextkit.KindRunner && !back && l.Node.ID != s.node {
			able = able && l.Node.Runner >= canCursors
			byEvents = byEvents && l.Node.Runner >= canByEvents
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for id, tenants := range announced {
		if !slices.IsSorted(tenants) {
			tenants = slices.Sorted(slices.Values(tenants))
			announced[id] = tenants
		}
		changed = changed || !slices.Equal(tenants, s.announced[id])
	}
	changed = changed || len(announced) != len(s.announced) || able == s.ableSince.IsZero()
	if s.announced == nil {
		close(s.nodesKnown)
	}
	s.announced, s.revisions = announced, revisionsOf(fleet.Nodes)
	s.ableSince = since(able, s.ableSince)
	s.byEventsSince = since(byEvents, s.byEventsSince)
	if changed {
		s.notify()
	}
}

// since returns the time since which a condition holds, given the previous value before (zero: it did not hold).
func since(holds bool, before time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case before.IsZero():
		return time.Now()
	}
	return before
}

// byEvents reports whether every announced or recently lost runner names instances by their events; after an upgrade,
// for some time.
func (s *Service) byEvents() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.byEventsSince.IsZero() && (!s.upgraded || time.Since(s.byEventsSince) >= s.settled)
}

// hasEarlierRecords reports whether there are records of instances by earlier versions.
func hasEarlierRecords(ctx context.Context, js jetstream.JetStream) (bool, error) {
	stream, err := js.Stream(ctx, streams.BucketStream(streams.BucketWorkflows))
	if err != nil {
		return false, fmt.Errorf("bucket %s: %w", streams.BucketWorkflows, err)
	}
	return stream.CachedInfo().State.Msgs > 0, nil
}

// followNodes follows the announced nodes until ctx ends.
func (s *Service) followNodes(ctx context.Context) {
	fleet.FollowNodes(ctx, s.js, fleet.Follower{Tenants: true, Each: s.setNodes, Failed: func(err error) {
		s.log.Error().Err(err).Msg("following nodes failed, retrying; the known nodes stay")
	}})
}

// blockEarlierRunners pauses a tenant without a cursor for runners of earlier versions. Such a runner, started by
// mistake, would begin at the journal's start.
func (s *Service) blockEarlierRunners(ctx context.Context, tenant contextkit.TenantID) error {
	ctx = contextkit.TenantContext(ctx, tenant)
	if _, err := kv.Put(ctx, s.js, streams.BucketRunner, pausedKey(tenant), []byte(decidedPaused)); err != nil {
		return fmt.Errorf("block runners of earlier versions from tenant %s: %w", tenant, err)
	}
	return nil
}
