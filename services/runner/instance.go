package runner

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/model"
)

// state is the state of an instance.
type state string

const (
	// stateUndecided: it cannot be evaluated whether the event starts the instance.
	stateUndecided    state = "undecided"
	stateRunning      state = "running"
	stateCompensating state = "compensating"
	stateCompleted    state = "completed"
	stateCompensated  state = "compensated"
	stateFailed       state = "failed"
	// stateCancelled: an operator has ended the instance.
	stateCancelled state = "cancelled"
	// stateMoved: the record is in the bucket of earlier versions and the instance has a record in the other bucket
	// (see [instances.move]). Earlier versions ignore it.
	stateMoved state = "moved"
)

// ended reports whether the instance has ended. A failed instance waits for an operator.
func (s state) ended() bool {
	return s == stateCompleted || s == stateCompensated || s == stateCancelled
}

// outcome is the outcome of a step, stored in the instance's record.
type outcome string

const (
	outcomeDone    outcome = "done"
	outcomeRefused outcome = "refused"
	outcomeSkipped outcome = "skipped" // by an operator
)

// instance is a workflow's stored progress for one trigger event. A record expires [streams.WorkflowTTL] after the
// instance has ended, and not before.
type instance struct {
	Workflow string `json:"workflow"`
	ID       string `json:"id"`
	// Model is the model revision that drives the instance: the one that it started with, or has migrated to. "": an
	// earlier version of the runner wrote the record.
	Model    string        `json:"model,omitempty"`
	State    state         `json:"state"`
	Steps    []step        `json:"steps"`
	Failure  model.Failure `json:"failure"`
	Waiting  *waiting      `json:"waiting,omitempty"`
	Attempts *attempts     `json:"attempts,omitempty"`
	// Requests are the requests of steps by step name, stored before they are sent and until the outcome is known.
	Requests map[string]*request `json:"requests,omitempty"`
	Trigger  model.Trigger       `json:"trigger"`
	// Event is the type of the event that started the instance; "": an earlier version of the runner wrote the
	// record.
	Event string `json:"event,omitempty"`
	// DataVersion is the version of the trigger's data; 0: the first, or unknown.
	DataVersion int       `json:"data_version,omitempty"`
	Started     time.Time `json:"started"`
	Updated     time.Time `json:"updated"`

	// Asked is set if an operator has requested the next attempt, which an open breaker does not hold.
	Asked bool `json:"asked,omitempty"`

	// Was is the state of an instance whose record is [stateMoved].
	Was state `json:"was,omitempty"`

	tenant   contextkit.TenantID
	revision uint64    // KV revision of the record; 0: not stored yet
	woken    time.Time // when the message that woke it became due, by the clock of NATS; zero: not woken by a message
	// earlier is set if the record is in the bucket of earlier versions.
	earlier bool
	// loaded is set if the record was read: its requests may have been sent.
	loaded bool
	// unsent is the step without an attempt because its receiver's breaker was open; "": none.
	unsent string
	// attempted are the failed attempts at the step that is driven; nil: there are none.
	attempted *attempts
	// trial is set if an operator has requested this attempt.
	trial bool
	// dirty is set if the record is out of date.
	dirty bool
}

// now returns the time for deciding whether waits and retries are due. This runner's clock may be behind that of
// NATS, which has delivered the instance's message when it was due.
func (i *instance) now() time.Time {
	if now := time.Now(); now.After(i.woken) {
		return now
	}
	return i.woken
}

// request is the request of a step, a command or a webhook. A retry sends the same request.
type request struct {
	// Key is its idempotency key.
	Key string `json:"key"`
	// Aggregate, ID, Command and Payload are set for a command.
	Aggregate string       `json:"aggregate,omitempty"`
	ID        string       `json:"id,omitempty"`
	Command   string       `json:"command,omitempty"`
	Payload   model.Object `json:"payload,omitempty"`
	// URL and Body are set for a webhook.
	URL  string          `json:"url,omitempty"`
	Body json.RawMessage `json:"body,omitempty"`
	// Digest is the SHA-256 of Payload or Body if these are too large to be stored.
	Digest []byte `json:"digest,omitempty"`

	sent bool // it may have been sent before
}

// waiting is the step at which an instance waits, and the time until which it waits.
type waiting struct {
	Step  string    `json:"step"`
	Until time.Time `json:"until"`
	// Since is when the wait began; zero: an earlier version has stored it.
	Since time.Time `json:"since,omitzero"`
}

// step is the record of a completed or refused step.
type step struct {
	Name    string    `json:"name"`
	Outcome outcome   `json:"outcome"`
	Message string    `json:"message,omitempty"`
	Time    time.Time `json:"time"`
	// Began is when the last attempt, or the wait, began; zero: there was none, or an earlier version has stored the
	// step.
	Began time.Time `json:"began,omitzero"`
	// Failed are the last failed attempts before.
	Failed []failedAttempt `json:"failed,omitempty"`
}

// event returns the event that started the instance, in the current form of its data.
func (i *instance) event() (journal.Event, error) {
	meta := i.Trigger.Meta
	at, err := time.Parse(time.RFC3339Nano, meta.Time)
	if err != nil {
		return journal.Event{}, fmt.Errorf("read workflow instance: %w", err)
	}
	data, err := json.Marshal(i.Trigger.Data)
	return journal.Event{
		ID:            meta.EventID,
		Type:          i.Event,
		AggregateType: meta.AggregateType,
		AggregateID:   meta.AggregateID,
		Version:       meta.Version,
		Time:          at,
		Data:          data,
		DataVersion:   i.DataVersion,
	}, err
}

// triggerMeta returns the metadata of an event for the model's rules.
func triggerMeta(tenant contextkit.TenantID, event journal.Event) model.Meta {
	return model.Meta{
		Tenant:        tenant.String(),
		AggregateType: event.AggregateType,
		AggregateID:   event.AggregateID,
		Version:       event.Version,
		Time:          event.Time.UTC().Format(time.RFC3339Nano),
		EventID:       event.ID,
	}
}

func (i *instance) find(name string) (step, bool) {
	for _, s := range i.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return step{}, false
}
