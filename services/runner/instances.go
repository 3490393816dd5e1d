package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// errNoInstance reports that there is no such record.
var errNoInstance = errors.New("the workflow instance does not exist")

// instances stores the records. An instance is named by the event that starts it, and its record is in the bucket
// "instances". Earlier versions name it by the event's aggregate and version, in the bucket "workflows"; while a
// runner of such a version is announced, this version does the same, since each must find the instances that the
// other has started. Those instances are found under their earlier names, and moved to the other bucket when they are
// driven.
type instances struct {
	bucket, earlier *kv.Bucket[*instance]
	// byEvents reports whether all runners name instances by events.
	byEvents func() bool
}

func openInstances(ctx context.Context, js jetstream.JetStream, byEvents func() bool) (*instances, error) {
	s := &instances{byEvents: byEvents}
	var errs [2]error
	s.bucket, errs[0] = kv.Open[*instance](ctx, js, streams.BucketInstances)
	s.earlier, errs[1] = kv.Open[*instance](ctx, js, streams.BucketWorkflows)
	return s, errors.Join(errs[:]...)
}

// earlierID returns the name of an event's instance in earlier versions.
func earlierID(event journal.Event) string {
	if event.Version == 1 {
		return event.AggregateID
	}
	return fmt.Sprintf("%s=%d", event.AggregateID, event.Version)
}

// eventName returns the name of the instance by its event: see [journal.UniqueID].
func (i *instance) eventName() string {
	meta := i.Trigger.Meta
	return journal.UniqueID(meta.EventID, meta.AggregateType, meta.AggregateID, meta.Version)
}

func recordKey(tenant contextkit.TenantID, workflow, id string) string {
	return tenant.String() + "." + workflow + "." + id
}

// load returns the record of an instance by its name, including a name of earlier versions, or [errNoInstance].
func (s *instances) load(ctx context.Context, tenant contextkit.TenantID, workflow, id string) (*instance, error) {
	i, err := s.read(ctx, s.bucket, tenant, workflow, id)
	if !errors.Is(err, errNoInstance) {
		return i, err
	}
	if i, err = s.read(ctx, s.earlier, tenant, workflow, id); err != nil {
		return nil, err
	}
	return s.follow(ctx, i)
}

// find returns the record of a workflow's instance for an event under an earlier version's name, or [errNoInstance].
// A record of that name may belong to an event of another aggregate type.
func (s *instances) find(
	ctx context.Context, tenant contextkit.TenantID, workflow string, event journal.Event,
) (*instance, error) {
	i, err := s.read(ctx, s.earlier, tenant, workflow, earlierID(event))
	switch {
	case err != nil:
		return nil, err
	case i.Trigger.Meta.EventID != event.ID:
		return nil, errNoInstance
	}
	return s.follow(ctx, i)
}

// of returns the record of a workflow's instance for an event, or [errNoInstance].
func (s *instances) of(
	ctx context.Context, tenant contextkit.TenantID, workflow string, event journal.Event,
) (*instance, error) {
	i, err := s.find(ctx, tenant, workflow, event)
	if errors.Is(err, errNoInstance) {
		return s.read(ctx, s.bucket, tenant, workflow, event.UniqueID())
	}
	return i, err
}

// create stores the first record of an instance and returns the instance. If there is a record under its event's
// name, it returns that one.
func (s *instances) create(ctx context.Context, i *instance, event journal.Event) (*instance, error) {
	i.ID = event.UniqueID()
	if !s.byEvents() {
		if now, err := s.read(ctx, s.bucket, i.tenant, i.Workflow, i.ID); !errors.Is(err, errNoInstance) {
			return now, err
		}
		switch _, err := s.read(ctx, s.earlier, i.tenant, i.Workflow, earlierID(event)); {
		case errors.Is(err, errNoInstance):
			i.ID, i.earlier = earlierID(event), true
		case err != nil:
			return nil, err
		}
	}
	err := s.save(ctx, i)
	if errors.Is(err, kv.ErrChanged) { // or an attempt of this runner whose acknowledgement was lost
		return s.load(ctx, i.tenant, i.Workflow, i.ID)
	}
	return i, err
}

// read returns a bucket's record, or [errNoInstance].
func (s *instances) read(
	ctx context.Context, from *kv.Bucket[*instance], tenant contextkit.TenantID, workflow, id string,
) (*instance, error) {
	kept, err := from.Get(ctx, recordKey(tenant, workflow, id))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, errNoInstance
	}
	if err != nil {
		return nil, fmt.Errorf("read workflow instance: %w", err)
	}
	i := kept.Value
	i.tenant, i.revision, i.earlier, i.loaded = tenant, kept.Revision, from == s.earlier, true
	i.Trigger.Data = model.Normalize(i.Trigger.Data).(model.Object)
	return i, nil
}

// save writes the record, unless another node has written it since it was read.
func (s *instances) save(ctx context.Context, i *instance) error {
	i.Updated = time.Now().UTC()
	bucket, ttl := s.bucket, time.Duration(0)
	if i.earlier {
		bucket = s.earlier
	} else if i.State.ended() {
		ttl = streams.WorkflowTTL
	}
	// A KV revision of 0 requires that there is no record yet.
	revision, err := bucket.PutFor(ctx, recordKey(i.tenant, i.Workflow, i.ID), i, i.revision, ttl)
	if err != nil {
		return fmt.Errorf("write workflow instance: %w", err)
	}
	i.revision, i.dirty = revision, false
	return nil
}

// move stores an unfinished instance of an earlier version in a record that does not expire, under its event's name.
// It first marks the record of the earlier version, with the whole content of the other one, so that a runner that
// finds only the mark can continue from there.
func (s *instances) move(ctx context.Context, i *instance) error {
	if !i.earlier || i.State.ended() || i.Trigger.Meta.EventID == "" || !s.byEvents() {
		return nil
	}
	marked := *i
	marked.State, marked.Was = stateMoved, i.State
	if err := s.save(ctx, &marked); err != nil {
		return err
	}
	moved, err := s.follow(ctx, &marked)
	if err != nil {
		return err
	}
	*i = *moved
	return nil
}

// follow returns the instance of a record of an earlier version that may have been moved.
func (s *instances) follow(ctx context.Context, i *instance) (*instance, error) {
	if i.State != stateMoved {
		return i, nil
	}
	moved := *i
	moved.ID, moved.State, moved.Was, moved.earlier, moved.revision = i.eventName(), i.Was, "", false, 0
	now, err := s.read(ctx, s.bucket, i.tenant, i.Workflow, moved.ID)
	if !errors.Is(err, errNoInstance) {
		return now, err
	}
	if err = s.save(ctx, &moved); errors.Is(err, kv.ErrChanged) {
		return s.read(ctx, s.bucket, i.tenant, i.Workflow, moved.ID)
	}
	return &moved, err
}

// newest calls each for the records whose keys match a pattern of TENANT.WORKFLOW.ID, in which "*" matches any name,
// most recently changed first and those of earlier versions last, from a page on (0: the first), until each returns
// false or scan records have been read. It returns the next page; 0: there is none.
func (s *instances) newest(
	ctx context.Context, pattern string, page uint64, scan int, each func(*instance) bool,
) (next uint64, err error) {
	// A page is the KV revision to continue before, doubled, with the bucket in the lowest bit.
	for n, bucket := range []*kv.Bucket[*instance]{s.bucket, s.earlier} {
		part := uint64(n)
		if page&1 > part {
			continue
		}
		stopped := false
		before, err := bucket.Newest(
			ctx, pattern, page>>1, scan, func(key string, kept kv.Entry[*instance]) bool {
				scan--
				i := kept.Value
				name, _, _ := strings.Cut(key, ".")
				tenant, err := contextkit.ParseTenantID(name)
				if err != nil {
					return true // a record of another program
				}
				i.tenant, i.revision, i.earlier = tenant, kept.Revision, n == 1
				stopped = i.State != stateMoved && !each(i)
				return !stopped
			},
		)
		if err != nil || before > 0 {
			return before<<1 | part, err
		}
		if page = 0; n == 0 && scan <= 0 {
			scan = 1 // a page of the other bucket begins with its newest
		}
	}
	return 0, nil
}
