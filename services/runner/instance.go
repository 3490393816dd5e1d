package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/nats-io/nats.go/jetstream"
)

// state is how far an instance is.
type state string

const (
	stateRunning      state = "running"
	stateCompensating state = "compensating"
	stateCompleted    state = "completed"
	stateCompensated  state = "compensated"
	stateFailed       state = "failed"
)

// Outcomes of a step.
const (
	outcomeDone    = "done"
	outcomeRefused = "refused"
)

// instance is a workflow's progress for one trigger event, as it is kept.
type instance struct {
	Workflow string        `json:"workflow"`
	ID       string        `json:"id"`
	State    state         `json:"state"`
	Steps    []step        `json:"steps"`
	Failure  model.Failure `json:"failure"`
	Waiting  *waiting      `json:"waiting,omitempty"`
	Attempts *attempts     `json:"attempts,omitempty"`
	Trigger  model.Trigger `json:"trigger"`
	// DataVersion is the version of the trigger's data; 0: of the first, or not known.
	DataVersion int       `json:"data_version,omitempty"`
	Started     time.Time `json:"started"`
	Updated     time.Time `json:"updated"`

	tenant   contextkit.TenantID
	revision uint64    // of the record; 0: not kept yet
	woken    time.Time // when the message that woke it became due, by the clock of NATS; zero: none did
}

// now returns the time by which waits and retries have come: this runner's clock may be behind
// that of NATS, which has delivered the instance's message when it was due.
func (i *instance) now() time.Time {
	if now := time.Now(); now.After(i.woken) {
		return now
	}
	return i.woken
}

// waiting says at which step an instance is held back, and until when.
type waiting struct {
	Step  string    `json:"step"`
	Until time.Time `json:"until"`
}

// step is one thing that was done.
type step struct {
	Name    string    `json:"name"`
	Outcome string    `json:"outcome"`
	Message string    `json:"message,omitempty"`
	Time    time.Time `json:"time"`
}

// event is the one that started the instance, in the form that its data has.
func (i *instance) event(on model.EventRef) (backbone.Event, error) {
	meta := i.Trigger.Meta
	at, err := time.Parse(time.RFC3339Nano, meta.Time)
	if err != nil {
		return backbone.Event{}, fmt.Errorf("read workflow instance: %w", err)
	}
	data, err := json.Marshal(i.Trigger.Data)
	return backbone.Event{
		ID: meta.EventID, Type: on.Event, AggregateType: meta.AggregateType, AggregateID: meta.AggregateID, Version: meta.Version, Time: at,
		Data: data, DataVersion: i.DataVersion,
	}, err
}

func (i *instance) find(name string) (step, bool) {
	for _, s := range i.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return step{}, false
}

// errNoInstance says that there is no such record.
var errNoInstance = errors.New("there is no such workflow instance")

// instances keeps the records.
type instances struct{ bucket *backbone.Bucket[*instance] }

func openInstances(ctx context.Context, js jetstream.JetStream) (*instances, error) {
	bucket, err := backbone.OpenBucket[*instance](ctx, js, backbone.BucketWorkflows)
	return &instances{bucket}, err
}

// instanceID names the instance that an event starts. An aggregate's first
// event is by far the usual trigger, and its instance bears its plain name.
func instanceID(event backbone.Event) string {
	if event.Version == 1 {
		return event.AggregateID
	}
	return fmt.Sprintf("%s=%d", event.AggregateID, event.Version)
}

func recordKey(tenant contextkit.TenantID, workflow, id string) string {
	return tenant.String() + "." + workflow + "." + id
}

// load returns the record, or [errNoInstance].
func (s *instances) load(ctx context.Context, tenant contextkit.TenantID, workflow, id string) (*instance, error) {
	kept, err := s.bucket.Get(ctx, recordKey(tenant, workflow, id))
	if errors.Is(err, backbone.ErrNotKept) {
		return nil, errNoInstance
	}
	if err != nil {
		return nil, fmt.Errorf("read workflow instance: %w", err)
	}
	i := kept.Value
	i.tenant, i.revision = tenant, kept.Revision
	i.Trigger.Data = model.Normalize(i.Trigger.Data).(model.Object)
	return i, nil
}

// save writes the record, unless another node has written it since it was read.
func (s *instances) save(ctx context.Context, i *instance) error {
	i.Updated = time.Now().UTC()
	// A revision of 0 means that there must be no record yet.
	revision, err := s.bucket.Put(ctx, recordKey(i.tenant, i.Workflow, i.ID), i, i.revision)
	if err != nil {
		return fmt.Errorf("write workflow instance: %w", err)
	}
	i.revision = revision
	return nil
}
