package runner

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/workqueue"
)

// maxSchedule bounds how far ahead a message is scheduled. An instance that waits longer is driven then, and
// schedules the next message.
const maxSchedule = 28 * 24 * time.Hour

// scheduleInstance schedules the next drive of an instance: NATS stores the schedule and delivers the message to the
// tenant's owner at that time. A second schedule for the same instance replaces the first.
func scheduleInstance(ctx context.Context, js jetstream.JetStream, i *instance, at time.Time) error {
	if latest := time.Now().Add(maxSchedule); at.After(latest) {
		at = latest
	}
	return schedule(ctx, js, streams.LaterSubject(i.tenant, i.Workflow, i.ID), i, at)
}

// schedule is scheduleInstance with a subject.
func schedule(ctx context.Context, js jetstream.JetStream, subject string, i *instance, at time.Time) error {
	msg := &nats.Msg{Subject: subject, Header: nats.Header{}}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout) // an acknowledgement may be lost
	defer cancel()
	_, err := js.PublishMsg(ctx, msg,
		jetstream.WithScheduleAt(at.Add(time.Second-1).Truncate(time.Second)), // schedules have whole seconds
		jetstream.WithScheduleTarget(streams.WorkSubject(i.tenant, i.Workflow, i.ID)), jetstream.WithScheduleTTLNever())
	if err != nil {
		return fmt.Errorf("schedule %s %s: %w", i.Workflow, i.ID, err)
	}
	return nil
}

// dueConsumer returns the tenant's consumer of due work.
func (w *worker) dueConsumer(ctx context.Context) (jetstream.Consumer, error) {
	name := "due-" + w.tenant.String()
	consumer, err := w.js.CreateOrUpdateConsumer(ctx, streams.Work, jetstream.ConsumerConfig{
		Durable:       name,
		FilterSubject: streams.WorkSubject(w.tenant, "*", "*"),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: 4 * tenantConcurrency,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", name, err)
	}
	return consumer, nil
}

// due drives the instance of a due message.
func (w *worker) due(ctx context.Context, msg jetstream.Msg) {
	rc, err := contextkit.ExtractNATS(msg.Headers())
	parts := strings.SplitN(msg.Subject(), ".", 4) // work.TENANT.WORKFLOW.INSTANCE
	if err != nil || rc.TenantID != w.tenant || len(parts) != 4 {
		w.log.Error().Err(err).Str("subject", msg.Subject()).Msg("due work cannot be read")
		_ = msg.TermWithReason("malformed") // a retry cannot help
		return
	}
	work := workqueue.Due{
		Tenant:   w.tenant,
		Workflow: parts[2],
		Instance: parts[3],
		Context:  rc,
	}
	failed := 0
	if meta, err := msg.Metadata(); err == nil {
		work.Time, failed = meta.Timestamp, int(meta.NumDelivered)-1
	}
	if ended, again := w.workDue(ctx, work, try{failed: failed}); !ended {
		_ = msg.NakWithDelay(again) // if it is lost, ackWait delivers it again
		return
	}
	if err := msg.Ack(); err != nil {
		w.log.Warn().Err(err).Msg("acknowledgement lost, the instance will be checked again")
	}
}
