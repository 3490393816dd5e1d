package lease

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
)

// follow follows the members, and deletes the leases of silent ones, until ctx ends.
func (l *Lease) follow(ctx context.Context) {
	changes := make(chan kv.Changes[Member])
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.bucket.FollowChanges(ctx, func(c kv.Changes[Member]) {
			select {
			case changes <- c:
			case <-ctx.Done():
			}
		}, func(err error) {
			l.config.Log.Warn().Err(err).Msg("following the leases failed; retrying")
		})
	}()
	ticker := time.NewTicker(l.config.Every)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case c := <-changes:
			l.update(c)
		case <-ticker.C:
			l.expire(ctx)
		}
	}
}

// update applies changes of the bucket.
func (l *Lease) update(c kv.Changes[Member]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	differs := false
	prefix := l.key("")
	if c.Whole {
		for id := range l.members {
			if _, there := c.Put[l.key(id)]; !there {
				delete(l.members, id)
				differs = true
			}
		}
	}
	for _, key := range c.Deleted {
		id, ours := strings.CutPrefix(key, prefix)
		if _, there := l.members[id]; ours && there {
			delete(l.members, id)
			differs = true
		}
	}
	for key, kept := range c.Put {
		id, ours := strings.CutPrefix(key, prefix)
		if !ours || kept.Value.ID != id || kept.Revision <= l.members[id].revision {
			continue
		}
		differs = differs || l.members[id].member != kept.Value
		l.members[id] = seen{kept.Value, kept.Revision, time.Now()}
	}
	if differs {
		l.notify()
	}
}

// expire deletes the leases of members that have been silent for too long. A process that is unsure
// whether it holds its lease removes none.
func (l *Lease) expire(ctx context.Context) {
	if !l.Valid() {
		return
	}
	l.mu.Lock()
	var silent []seen
	for id, s := range l.members {
		if id != l.own.ID && time.Since(s.at) > l.config.Lost {
			silent = append(silent, s)
		}
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), l.config.Lost/2)
	defer cancel()
	for _, s := range silent {
		id := s.member.ID
		kept, err := l.bucket.Get(ctx, l.key(id))
		switch {
		case errors.Is(err, kv.ErrNotFound):
		case err != nil:
			continue
		case kept.Revision > s.revision: // only its announcements are late
			l.update(kv.Changes[Member]{Put: map[string]kv.Entry[Member]{l.key(id): kept}})
			continue
		default:
			if err := l.bucket.Delete(ctx, l.key(id), kept.Revision); err != nil {
				continue // it has renewed its lease, or the next look decides
			}
			l.config.Log.Warn().Str("node", s.member.Node).Str("lease", id).Msg(
				"a process was silent for too long; its lease is deleted",
			)
		}
		l.update(kv.Changes[Member]{Deleted: []string{l.key(id)}})
	}
}
