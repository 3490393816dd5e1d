package runner

import (
	"encoding/json"

	"fmt"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
)

// state is how far an instance is.
type state string

const (
	// stateUndecided is of an instance of which it cannot be said whether its event starts it.
	stateUndecided    state = "undecided"
	stateRunning      state = "running"
	stateCompensating state = "compensating"
	stateCompleted    state = "completed"
	stateCompensated  state = "compensated"
	stateFailed       state = "failed"
	// stateCancelled is of an instance that an operator has ended as it was.
	stateCancelled state = "cancelled"
	// stateMoved is of a record in the bucket of earlier versions whose instance has one in the
	// other (see [instances.move]). Earlier versions do nothing for it.
	stateMoved state = "moved"
)

// ended reports whether nothing more happens to an instance. One that has failed waits for an
// operator.
func (s state) ended() bool {
	return s == stateCompleted || s == stateCompensated || s == stateCancelled
}

// Outcomes of a step.
const (
	outcomeDone    = "done"
	outcomeRefused = "refused"
)

// instance is a workflow's stored progress for one trigger event. A record expires
// [backbone.WorkflowTTL] after the instance has ended, and not before.
type instance struct {
	Workflow string `json:"workflow"`
	ID       string `json:"id"`
	// Model is the revision of the model that the instance is driven by: the one that it began
	// under, or that it has migrated to. "": an earlier version of the runner wrote the record.
	Model    string        `json:"model,omitempty"`
	State    state         `json:"state"`
	Steps    []step        `json:"steps"`
	Failure  model.Failure `json:"failure"`
	Waiting  *waiting      `json:"waiting,omitempty"`
	Attempts *attempts     `json:"attempts,omitempty"`
	// Requests are what steps send, by the steps' names: stored before they are sent, until the
	// outcome is known.
	Requests map[string]*request `json:"requests,omitempty"`
	Trigger  model.Trigger       `json:"trigger"`
	// Event is the type of the event that started the instance; "": an earlier version of the
	// runner wrote the record.
	Event string `json:"event,omitempty"`
	// DataVersion is the version of the trigger's data; 0: of the first, or not known.
	DataVersion int       `json:"data_version,omitempty"`
	Started     time.Time `json:"started"`
	Updated     time.Time `json:"updated"`

	// Asked says that an operator asks for the next attempt, which no open breaker holds.
	Asked bool `json:"asked,omitempty"`

	// Was is the state of an instance whose record is [stateMoved].
	Was state `json:"was,omitempty"`

	tenant   contextkit.TenantID
	revision uint64    // of the record; 0: not stored yet
	woken    time.Time // when the message that woke it became due, by the clock of NATS; zero: none did
	// earlier says that the record is in the bucket of earlier versions.
	earlier bool
	// loaded says that the record was read: what it says is sent may have been sent.
	loaded bool
	// unsent is the step at which no attempt was made, since its receiver's breaker was open; "": none.
	unsent string
	// trial says that an operator has asked for this attempt.
	trial bool
	// dirty says that the record is behind.
	dirty bool
}

// now returns the time by which waits and retries have come: this runner's clock may be behind
// that of NATS, which has delivered the instance's message when it was due.
func (i *instance) now() time.Time {
	if now := time.Now(); now.After(i.woken) {
		return now
	}
	return i.woken
}

// request is what a step sends: a command, or a webhook. Sent again, it is the same.
type request struct {
	// Key is its idempotency key.
	Key string `json:"key"`
	// Aggregate, ID, Command and Payload are a command's.
	Aggregate string       `json:"aggregate,omitempty"`
	ID        string       `json:"id,omitempty"`
	Command   string       `json:"command,omitempty"`
	Payload   model.Object `json:"payload,omitempty"`
	// URL and Body are a webhook's.
	URL  string          `json:"url,omitempty"`
	Body json.RawMessage `json:"body,omitempty"`
	// Digest is the SHA-256 of Payload or Body where these are too large to be stored.
	Digest []byte `json:"digest,omitempty"`

	sent bool // it may have been sent before
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
func (i *instance) event() (backbone.Event, error) {
	meta := i.Trigger.Meta
	at, err := time.Parse(time.RFC3339Nano, meta.Time)
	if err != nil {
		return backbone.Event{}, fmt.Errorf("read workflow instance: %w", err)
	}
	data, err := json.Marshal(i.Trigger.Data)
	return backbone.Event{
		ID: meta.EventID, Type: i.Event, AggregateType: meta.AggregateType, AggregateID: meta.AggregateID, Version: meta.Version, Time: at,
		Data: data, DataVersion: i.DataVersion,
	}, err
}

// triggerMeta is what the model's rules know of an event besides its data.
func triggerMeta(tenant contextkit.TenantID, event backbone.Event) model.Meta {
	return model.Meta{
		Tenant: tenant.String(), AggregateType: event.AggregateType, AggregateID: event.AggregateID,
		Version: event.Version, Time: event.Time.UTC().Format(time.RFC3339Nano), EventID: event.ID,
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
