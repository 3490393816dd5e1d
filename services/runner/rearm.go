package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// rearmEvery is the minimum interval between two searches for waits without a message, and rearmFirst the delay
	// of the first one.
	rearmEvery, rearmFirst = 10 * time.Minute, 10 * time.Second
	// rearmPart is the number of records that are read together.
	rearmPart = 256
	// rearmRest is the pause after a part, as a multiple of the time that the part took, so that a search uses at
	// most 2 % of the time.
	rearmRest = 49
	// rearmAge is the minimum age of a record of a waiting instance, since the message of a wait is stored some
	// seconds and attempts after its record. rearmWork is the minimum age of a record of an instance that does not
	// wait and may be running: longer than two attempts at it.
	rearmAge, rearmWork = time.Minute, 3 * workTimeout
	// rearmVersions bounds the events of an aggregate that are read to find a trigger.
	rearmVersions = 256
)

// rearm reschedules unfinished instances without a message, until ctx ends. A waiting or failed instance continues by
// a message in the stream WORK; if that is lost, for example because the stream was restored without it, the instance
// would never continue. Neither would one whose trigger is not processed again, because its runner was killed and the
// model no longer reacts to the event.
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
			s.log.Warn().Err(err).Msg("searching for instances without a message failed, retrying")
		}
	}
}

// rearmAll searches all records once, and removes the model revisions that none of them needs. now is the start of
// the search.
func (s *Service) rearmAll(ctx context.Context, now time.Time) error {
	used := map[string]bool{}
	for _, bucket := range []string{streams.BucketWorkflows, streams.BucketInstances} { // records move to the latter
		if err := s.rearmBucket(ctx, bucket, used); err != nil {
			return err
		}
	}
	return s.pinned.expire(ctx, used, now)
}

// rearmBucket searches a bucket's records once, and adds the model revisions that unfinished instances of any tenant
// need to used.
func (s *Service) rearmBucket(ctx context.Context, bucket string, used map[string]bool) error {
	stream, prefix := streams.BucketStream(bucket), "$KV."+bucket+"."
	next := uint64(1)
	for {
		began, read := time.Now(), 0
		var suspects []*instance
		err := natsclient.ReadPart(
			ctx, s.js, stream, prefix+">", next, rearmPart, func(msg *jetstream.RawStreamMsg) error {
				next = msg.Sequence + 1
				read++
				var i instance
				if json.Unmarshal(msg.Data, &i) != nil || i.State.ended() {
					return nil //nolint:nilerr // a deleted key's marker, or of another version
				}
				used[i.Model] = true
				i.revision, i.earlier = msg.Sequence, bucket == streams.BucketWorkflows
				if s.isSuspect(strings.TrimPrefix(msg.Subject, prefix), &i, time.Since(msg.Time)) {
					suspects = append(suspects, &i)
				}
				return nil
			},
		)
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

// isSuspect reports whether an unfinished instance should have a message: it continues automatically, its record is
// old enough, and the node serves its tenant. It sets the instance's tenant.
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

// rearmOne reschedules an instance if its message is missing and its record has not changed.
func (s *Service) rearmOne(ctx context.Context, i *instance) error {
	ctx = s.triggered(ctx, i)
	if i.State == stateMoved { // if its runner was killed between its two records, write the second one
		_, err := s.instances.follow(ctx, i)
		return err
	}
	for _, subject := range []string{
		streams.LaterSubject(i.tenant, i.Workflow, i.ID), streams.RetrySubject(i.tenant, i.Workflow, i.ID),
		streams.WorkSubject(i.tenant, i.Workflow, i.ID),
	} {
		there, err := natsclient.HasMessage(ctx, s.js, streams.Work, subject)
		if err != nil || there {
			return err
		}
	}
	now, err := s.instances.load(ctx, i.tenant, i.Workflow, i.ID)
	if err != nil || now.revision != i.revision {
		return nil //nolint:nilerr // it continues, or the next search finds it again
	}
	at := time.Now()
	if i.Waiting != nil {
		at = i.Waiting.Until
	}
	if err := scheduleInstance(ctx, s.js, i, at); err != nil {
		return fmt.Errorf("message of %s %s: %w", i.Workflow, i.ID, err)
	}
	s.log.Warn().Str("tenant", i.tenant.String()).Str("workflow", i.Workflow).Str("instance", i.ID).
		Time("at", at).Msg("the message of an instance was missing, scheduled it again")
	return nil
}

// triggered returns a context for continuing the instance: that of the event that started it, if the journal still
// has it.
func (s *Service) triggered(ctx context.Context, i *instance) context.Context {
	meta := i.Trigger.Meta
	rc, _ := contextkit.FromContext(contextkit.TenantContext(ctx, i.tenant))
	if meta.Version > 0 && meta.Version <= rearmVersions {
		subject := streams.EventSubject(i.tenant, meta.AggregateType, meta.AggregateID)
		_ = natsclient.ReadPart(
			ctx, s.js, streams.Events, subject, 1, int(meta.Version), func(msg *jetstream.RawStreamMsg) error {
				if event, err := journal.ReadEvent(journal.RawMessage(msg)); err == nil && event.ID == meta.EventID {
					rc = event.Context
				}
				return nil
			},
		) // without it the instance continues too
	}
	rc.CausationID, rc.RequestID = meta.EventID, contextkit.NewID()
	rc.Depth++
	return contextkit.NewContext(ctx, rc)
}
