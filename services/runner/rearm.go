package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// rearmEvery is the least time between two searches for waits without a message, and
	// rearmFirst that before the first one.
	rearmEvery, rearmFirst = 10 * time.Minute, 10 * time.Second
	// rearmPart is how many records are read together.
	rearmPart = 256
	// rearmRest is how many times as long as a part took a search pauses after it, so that it
	// takes at most a fiftieth of the time, however many records there are.
	rearmRest = 49
	// rearmAge is how old a record of an instance that waits must be: the message of a wait is
	// stored after its record, within some seconds and a few attempts. rearmWork is that of one
	// that does not wait, and that may be in work: longer than two attempts at it take.
	rearmAge, rearmWork = time.Minute, 3 * workTimeout
	// rearmVersions is how many events of an aggregate are read to find a trigger.
	rearmVersions = 256
)

// rearm schedules instances again that have not ended and have no message, until ctx ends. An
// instance that waits, or whose step has failed, goes on by a message in the stream WORK; where
// that is lost, as with a stream that was restored without it, the instance would stay as it is for
// ever. So would one whose trigger is not looked at again: its runner was killed, and the model
// does not react to the event any more.
func (s *Service) rearm(ctx context.Context) {
	every := cmp.Or(s.rearmEvery, rearmEvery)
	pause := min(every, rearmFirst)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = every
		if err := s.rearmAll(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("instances without a message are not searched to the end; it is tried again")
		}
	}
}

// rearmAll searches all records once, and removes the model revisions that none of them needs: now
// is when it begins.
func (s *Service) rearmAll(ctx context.Context, now time.Time) error {
	used := map[string]bool{}
	for _, bucket := range []string{backbone.BucketWorkflows, backbone.BucketInstances} { // records move to the latter
		if err := s.rearmBucket(ctx, bucket, used); err != nil {
			return err
		}
	}
	return s.pinned.expire(ctx, used, now)
}

// rearmBucket searches a bucket's records once, and notes the model revisions that unfinished
// instances of any tenant need.
func (s *Service) rearmBucket(ctx context.Context, bucket string, used map[string]bool) error {
	stream, prefix := backbone.BucketStream(bucket), "$KV."+bucket+"."
	next := uint64(1)
	for {
		began, read := time.Now(), 0
		var suspects []*instance
		err := backbone.ReadPart(ctx, s.js, stream, prefix+">", next, rearmPart, func(msg *jetstream.RawStreamMsg) error {
			next = msg.Sequence + 1
			read++
			var i instance
			if json.Unmarshal(msg.Data, &i) != nil || i.State.ended() {
				return nil //nolint:nilerr // a deleted key's marker, or of another version
			}
			used[i.Model] = true
			i.revision, i.earlier = msg.Sequence, bucket == backbone.BucketWorkflows
			if s.isSuspect(strings.TrimPrefix(msg.Subject, prefix), &i, time.Since(msg.Time)) {
				suspects = append(suspects, &i)
			}
			return nil
		})
		if err != nil || read == 0 {
			return err
		}
		for _, i := range suspects {
			if err := s.rearmOne(ctx, i); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rearmRest * time.Since(began)):
		}
	}
}

// isSuspect reports whether an unfinished instance should have a message: it goes on by itself, its
// record has an age, and the node does its tenant's work. It sets the instance's tenant.
func (s *Service) isSuspect(key string, i *instance, age time.Duration) bool {
	name, _, _ := strings.Cut(key, ".")
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil || !s.tenants.Serves(tenant) {
		return false
	}
	i.tenant = tenant
	least := rearmWork
	if i.Waiting != nil || i.Attempts != nil || i.State == stateMoved {
		least = rearmAge
	}
	if s.rearmEvery != 0 {
		least = 0
	}
	return age >= least && i.State != stateFailed && (i.Attempts == nil || !i.Attempts.Stuck)
}

// rearmOne schedules an instance again if its message is missing and its record has not changed.
func (s *Service) rearmOne(ctx context.Context, i *instance) error {
	ctx = s.triggered(ctx, i)
	if i.State == stateMoved { // if its runner was killed between its two records, the second one is written now
		_, err := s.instances.follow(ctx, i)
		return err
	}
	for _, subject := range []string{
		backbone.LaterSubject(i.tenant, i.Workflow, i.ID), backbone.RetrySubject(i.tenant, i.Workflow, i.ID),
		backbone.WorkSubject(i.tenant, i.Workflow, i.ID),
	} {
		there, err := backbone.HasMessage(ctx, s.js, backbone.StreamWork, subject)
		if err != nil || there {
			return err
		}
	}
	now, err := s.instances.load(ctx, i.tenant, i.Workflow, i.ID)
	if err != nil || now.revision != i.revision {
		return nil //nolint:nilerr // it goes on, or is seen again by the next search
	}
	at := time.Now()
	if i.Waiting != nil {
		at = i.Waiting.Until
	}
	if err := later(ctx, s.js, i, at); err != nil {
		return fmt.Errorf("message of %s %s: %w", i.Workflow, i.ID, err)
	}
	s.log.Warn().Str("tenant", i.tenant.String()).Str("workflow", i.Workflow).Str("instance", i.ID).
		Time("at", at).Msg("the message of an instance was missing; it is scheduled again")
	return nil
}

// triggered returns a context under which the instance goes on: that of the event that started
// it, as far as the journal still tells it.
func (s *Service) triggered(ctx context.Context, i *instance) context.Context {
	meta := i.Trigger.Meta
	rc, _ := contextkit.FromContext(contextkit.TenantContext(ctx, i.tenant))
	if meta.Version > 0 && meta.Version <= rearmVersions {
		subject := backbone.EventSubject(i.tenant, meta.AggregateType, meta.AggregateID)
		_ = backbone.ReadPart(ctx, s.js, backbone.StreamEvents, subject, 1, int(meta.Version), func(msg *jetstream.RawStreamMsg) error {
			if event, err := backbone.ReadEvent(backbone.RawMessage(msg)); err == nil && event.ID == meta.EventID {
				rc = event.Context
			}
			return nil
		}) // without it the instance goes on all the same
	}
	rc.CausationID, rc.RequestID = meta.EventID, contextkit.NewID()
	rc.Depth++
	return contextkit.NewContext(ctx, rc)
}
