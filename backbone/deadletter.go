package backbone

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
)

// Headers of a dead letter beside the event's own.
const (
	deadLetterCause    = "headgate-cause"
	deadLetterSubject  = "headgate-subject"
	deadLetterWork     = "headgate-work"
	deadLetterWorkflow = "headgate-workflow"
	deadLetterInstance = "headgate-instance"
	maxDeadLetterCause = 1024 // bytes
)

// LetterOrigin names the work that could not be done for an event.
type LetterOrigin struct {
	// Work is the name of the work, such as "runner-acme".
	Work string
	// Workflow and Instance name a workflow's instance; "": there is none.
	Workflow, Instance string
	// Revision is that of the instance's record when it was given up.
	Revision uint64
}

// id returns the message id of the letter: one that is stored again, because its acknowledgement
// was lost, is not stored twice, and one of a later failure has another id.
func (o LetterOrigin) id(event Event) string {
	return fmt.Sprintf("%s/%s/%s/%s/%d", o.Work, event.UniqueID(), o.Workflow, o.Instance, o.Revision)
}

// DeadLetter stores an event that work could not be done for, with its origin and its cause.
// Storing it twice within two minutes does nothing.
func DeadLetter(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, event Event, origin LetterOrigin, cause error) error {
	original, err := event.message(ctx, tenant)
	if err != nil {
		return err
	}
	msg := &nats.Msg{Subject: DeadLetterSubject(tenant), Header: original.Header, Data: event.Data}
	msg.Header.Set(deadLetterCause, excerpt.Text(strings.ToValidUTF8(cause.Error(), "\ufffd"), maxDeadLetterCause))
	msg.Header.Set(deadLetterSubject, original.Subject)
	msg.Header.Set(deadLetterWork, origin.Work)
	if origin.Workflow != "" {
		msg.Header.Set(deadLetterWorkflow, origin.Workflow)
		msg.Header.Set(deadLetterInstance, origin.Instance)
	}
	msg.Header.Set(jetstream.MsgIDHeader, origin.id(event))
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("backbone: keep a dead letter: %w", err)
	}
	return nil
}

// Letter is a dead letter as it is kept.
type Letter struct {
	// Sequence is its number, which grows.
	Sequence uint64
	// Event is the event that the work was for; its own sequence is not known.
	Event Event
	// Unreadable is why the event cannot be read, an [*UnreadableError], and nil if it can: an
	// earlier version, or another program, has stored it. Event is incomplete then.
	Unreadable error
	// Cause is why the work could not be done.
	Cause string
	// Workflow and Instance name the workflow's instance that was given up; "": not known, as for
	// letters of earlier versions, or there is none.
	Workflow, Instance string
	// Time is when it was given up.
	Time time.Time
}

// DeadLetters calls each for the tenant's dead letters, the oldest first, from a
// number (1: all) on, until it returns false or an error, which is returned.
func DeadLetters(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, from uint64, each func(Letter) (bool, error)) error {
	return deadLetters(ctx, js, tenant, from, 0, each)
}

// ReadDeadLetter returns the tenant's dead letter with a sequence, and false if there is none.
func ReadDeadLetter(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, sequence uint64) (letter Letter, found bool, err error) {
	err = deadLetters(ctx, js, tenant, sequence, 1, func(next Letter) (bool, error) {
		letter, found = next, next.Sequence == sequence
		return false, nil
	})
	return letter, found, err
}

// deadLetters is DeadLetters for at most the given number of letters; 0: all.
func deadLetters(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, from uint64, most int, each func(Letter) (bool, error)) error {
	errEnough := errors.New("enough")
	err := readBatches(ctx, js, StreamDeadLetters, DeadLetterSubject(tenant), from, most, func(msg *jetstream.RawStreamMsg) error {
		copied := Message{Subject: msg.Header.Get(deadLetterSubject), Header: msg.Header, Data: msg.Data, Sequence: msg.Sequence, Time: msg.Time}
		event, unreadable := copied.read(true)
		if unreadable != nil {
			event.ID, event.Type = msg.Header.Get(ceID), msg.Header.Get(ceType)
			_, event.AggregateType, event.AggregateID = copied.names()
		}
		event.Sequence = 0
		more, err := each(Letter{
			Sequence: msg.Sequence, Event: event, Unreadable: unreadable,
			Cause:    msg.Header.Get(deadLetterCause),
			Workflow: msg.Header.Get(deadLetterWorkflow),
			Instance: msg.Header.Get(deadLetterInstance),
			Time:     msg.Time,
		})
		if err == nil && !more {
			return errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// RemoveDeadLetter removes a letter whose work is done. One that is not there is
// removed already.
func RemoveDeadLetter(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	if err := removeMessage(ctx, js, StreamDeadLetters, sequence); err != nil {
		return fmt.Errorf("backbone: remove dead letter %d: %w", sequence, err)
	}
	return nil
}
