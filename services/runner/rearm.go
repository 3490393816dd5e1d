package runner

import (
	"bytes"
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
	// rearmAge is how old a record must be: the message of a wait is stored after its record,
	// within some seconds and a few attempts.
	rearmAge = time.Minute
	// rearmVersions is how many events of an aggregate are read to find a trigger.
	rearmVersions = 256
)

// rearm schedules waits again whose message is missing, until ctx ends. An instance waits for
// a message in the stream WORK; where that is lost, as with a stream that was restored without
// it, the instance would wait for ever.
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
		if err := s.rearmAll(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("waits without a message are not searched to the end; it is tried again")
		}
	}
}

// rearmAll searches all records once.
func (s *Service) rearmAll(ctx context.Context) error {
	stream, prefix := "KV_"+backbone.BucketWorkflows, "$KV."+backbone.BucketWorkflows+"."
	next := uint64(1)
	for {
		began, read := time.Now(), 0
		var suspects []*instance
		err := backbone.ReadPart(ctx, s.js, stream, prefix+">", next, rearmPart, func(msg *jetstream.RawStreamMsg) error {
			next = msg.Sequence + 1
			read++
			if i := s.suspect(strings.TrimPrefix(msg.Subject, prefix), msg); i != nil {
				suspects = append(suspects, i)
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

// suspect returns the instance of a record that waits, and has for some time, for a tenant
// whose work the node does.
func (s *Service) suspect(key string, msg *jetstream.RawStreamMsg) *instance {
	name, _, _ := strings.Cut(key, ".")
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil || !s.tenants.Serves(tenant) || !bytes.Contains(msg.Data, []byte(`"waiting"`)) || time.Since(msg.Time) < rearmAge && s.rearmEvery == 0 {
		return nil
	}
	var i instance
	if json.Unmarshal(msg.Data, &i) != nil || i.Waiting == nil || i.State != stateRunning {
		return nil
	}
	i.tenant, i.revision = tenant, msg.Sequence
	return &i
}

// rearmOne schedules an instance's wait again if its message is missing and its record has
// not changed.
func (s *Service) rearmOne(ctx context.Context, i *instance) error {
	for _, subject := range []string{backbone.LaterSubject(i.tenant, i.Workflow, i.ID), backbone.RetrySubject(i.tenant, i.Workflow, i.ID), backbone.WorkSubject(i.tenant, i.Workflow, i.ID)} {
		there, err := backbone.HasMessage(ctx, s.js, backbone.StreamWork, subject)
		if err != nil || there {
			return err
		}
	}
	now, err := s.instances.load(ctx, i.tenant, i.Workflow, i.ID)
	if err != nil || now.revision != i.revision {
		return nil //nolint:nilerr // it goes on, or is seen again by the next search
	}
	if err := later(s.triggered(ctx, i), s.js, i, i.Waiting.Until); err != nil {
		return fmt.Errorf("wait of %s %s: %w", i.Workflow, i.ID, err)
	}
	s.log.Warn().Str("tenant", i.tenant.String()).Str("workflow", i.Workflow).Str("instance", i.ID).
		Time("until", i.Waiting.Until).Msg("the message of a wait was missing; the wait is scheduled again")
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
			if event, err := backbone.ParseEvent(msg.Header, msg.Data, msg.Sequence); err == nil && event.ID == meta.EventID {
				rc = event.Context
			}
			return nil
		}) // without it the instance goes on all the same
	}
	rc.CausationID, rc.RequestID = meta.EventID, contextkit.NewID()
	rc.Depth++
	return contextkit.NewContext(ctx, rc)
}
