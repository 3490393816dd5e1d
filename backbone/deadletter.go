package backbone

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
)

// Headers of a dead letter beside the event's own.
const (
	deadLetterCause    = "headgate-cause"
	deadLetterSubject  = "headgate-subject"
	deadLetterWork     = "headgate-work"
	maxDeadLetterCause = 1024 // bytes
)

// DeadLetter keeps an event that work could not be done for, with the cause.
// Keeping it twice under the same work name does nothing.
func DeadLetter(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, event Event, work string, cause error) error {
	original, err := event.message(ctx, tenant)
	if err != nil {
		return err
	}
	text := cause.Error()
	msg := &nats.Msg{Subject: DeadLetterSubject(tenant), Header: original.Header, Data: event.Data}
	msg.Header.Set(deadLetterCause, text[:min(len(text), maxDeadLetterCause)])
	msg.Header.Set(deadLetterSubject, original.Subject)
	msg.Header.Set(deadLetterWork, work)
	msg.Header.Set(jetstream.MsgIDHeader, work+"/"+event.ID)
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("backbone: keep a dead letter: %w", err)
	}
	return nil
}
