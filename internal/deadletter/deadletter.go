package deadletter

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
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Headers of a dead letter beside the event's own.
const (
	headerCause    = "headgate-cause"
	headerSubject  = "headgate-subject"
	headerWork     = "headgate-work"
	headerWorkflow = "headgate-workflow"
	headerInstance = "headgate-instance"
	maxCause       = 1024 // bytes
)

// Origin names the work that could not be done for an event.
type Origin struct {
	// Work is the name of the work, such as "runner-acme".
	Work string
	// Workflow and Instance name a workflow's instance; "": there is none.
	Workflow, Instance string
	// Revision is that of the instance's record when it was given up.
	Revision uint64
}

// id returns the message id of the letter: one that is stored again, because its acknowledgement
// was lost, is not stored twice, and one of a later failure has another id.
func (o Origin) id(event journal.Event) string {
	return fmt.Sprintf("%s/%s/%s/%s/%d", o.Work, event.UniqueID(), o.Workflow, o.Instance, o.Revision)
}

// Store stores an event that work could not be done for, with its origin and its cause.
// Storing it twice within two minutes does nothing.
func Store(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	event journal.Event,
	origin Origin,
	cause error,
) error {
	original, err := event.Message(ctx, tenant)
	if err != nil {
		return err
	}
	msg := &nats.Msg{Subject: streams.DeadLetterSubject(tenant), Header: original.Header, Data: event.Data}
	msg.Header.Set(headerCause, excerpt.Text(strings.ToValidUTF8(cause.Error(), "\ufffd"), maxCause))
	msg.Header.Set(headerSubject, original.Subject)
	msg.Header.Set(headerWork, origin.Work)
	if origin.Workflow != "" {
		msg.Header.Set(headerWorkflow, origin.Workflow)
		msg.Header.Set(headerInstance, origin.Instance)
	}
	msg.Header.Set(jetstream.MsgIDHeader, origin.id(event))
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("deadletter: store a dead letter: %w", err)
	}
	return nil
}

// Letter is a stored dead letter.
type Letter struct {
	// Sequence is its number, which grows.
	Sequence uint64
	// Event is the event that the work was for; its own sequence is not known.
	Event journal.Event
	// Unreadable is why the event cannot be read, an [*journal.UnreadableError], and nil if it can: an
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

// Read calls each for the tenant's dead letters, the oldest first, from a
// number (1: all) on, until it returns false or an error, which is returned.
func Read(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	from uint64,
	each func(Letter) (bool, error),
) error {
	return read(ctx, js, tenant, from, 0, each)
}

// Get returns the tenant's dead letter with a sequence, and false if there is none.
func Get(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	sequence uint64,
) (letter Letter, found bool, err error) {
	err = read(ctx, js, tenant, sequence, 1, func(next Letter) (bool, error) {
		letter, found = next, next.Sequence == sequence
		return false, nil
	})
	return letter, found, err
}

// read is Read for at most the given number of letters; 0: all.
func read(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	from uint64,
	most int,
	each func(Letter) (bool, error),
) error {
	errEnough := errors.New("enough")
	err := natsclient.ReadBatches(
		ctx,
		js,
		streams.DeadLetters,
		streams.DeadLetterSubject(tenant),
		from,
		most,
		func(msg *jetstream.RawStreamMsg) error {
			copied := journal.Message{
				Subject:  msg.Header.Get(headerSubject),
				CopiedTo: msg.Subject,
				Header:   msg.Header,
				Data:     msg.Data,
				Sequence: msg.Sequence,
				Time:     msg.Time,
			}
			event, unreadable := journal.ReadEvent(copied)
			if unreadable != nil {
				event.ID, event.Type = msg.Header.Get(journal.HeaderID), msg.Header.Get(journal.HeaderType)
				_, event.AggregateType, event.AggregateID = copied.Names()
			}
			event.Sequence = 0
			more, err := each(Letter{
				Sequence:   msg.Sequence,
				Event:      event,
				Unreadable: unreadable,
				Cause:      msg.Header.Get(headerCause),
				Workflow:   msg.Header.Get(headerWorkflow),
				Instance:   msg.Header.Get(headerInstance),
				Time:       msg.Time,
			})
			if err == nil && !more {
				return errEnough
			}
			return err
		},
	)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// Remove removes a letter whose work is done. One that is not there is
// removed already.
func Remove(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	if err := natsclient.RemoveMessage(ctx, js, streams.DeadLetters, sequence); err != nil {
		return fmt.Errorf("deadletter: remove dead letter %d: %w", sequence, err)
	}
	return nil
}
