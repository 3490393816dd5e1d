package workqueue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Due is a message of the stream [streams.Work]: the time of a workflow's instance has come.
type Due struct {
	// Sequence is its number in the stream.
	Sequence uint64
	// Tenant, Workflow and Instance name the instance.
	Tenant             contextkit.TenantID
	Workflow, Instance string
	// Context is the contract that the message carries.
	Context contextkit.RequestContext
	// Time is when it became due, by the clock of NATS.
	Time time.Time
}

// Read calls each for the due work of a tenant, the zero tenant: of all, in order from a
// sequence on (1: all), for at most the given number of messages (0: all), until it returns an
// error, which is returned. malformed receives messages that cannot be read. Reading takes
// nothing away, and needs no consumer.
func Read(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	from uint64,
	most int,
	each func(Due) error,
	malformed func(sequence uint64, subject string, err error),
) error {
	subject := "work.*.*.*"
	if !tenant.IsZero() {
		subject = streams.WorkSubject(tenant, "*", "*")
	}
	return natsclient.ReadBatches(ctx, js, streams.Work, subject, from, most, func(msg *jetstream.RawStreamMsg) error {
		work, err := parseDueWork(msg)
		if err != nil {
			malformed(msg.Sequence, msg.Subject, err)
			return nil
		}
		return each(work)
	})
}

func parseDueWork(msg *jetstream.RawStreamMsg) (Due, error) {
	parts := strings.SplitN(msg.Subject, ".", 4) // see [streams.WorkSubject]
	if len(parts) != 4 {
		return Due{}, errors.New("the subject does not name an instance")
	}
	tenant, err := contextkit.ParseTenantID(parts[1])
	if err != nil {
		return Due{}, err
	}
	rc, err := contextkit.ExtractNATS(msg.Header)
	if err != nil {
		return Due{}, err
	}
	if rc.TenantID != tenant {
		return Due{}, fmt.Errorf("it carries the contract of tenant %q", rc.TenantID)
	}
	return Due{
		Sequence: msg.Sequence,
		Tenant:   tenant,
		Workflow: parts[2],
		Instance: parts[3],
		Context:  rc,
		Time:     msg.Time,
	}, nil
}

// Remove removes a message of completed work. A missing message is no error.
func Remove(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	if err := natsclient.RemoveMessage(ctx, js, streams.Work, sequence); err != nil {
		return fmt.Errorf("workqueue: remove due work %d: %w", sequence, err)
	}
	return nil
}

// MakeDue makes a workflow's instance due now.
func MakeDue(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, workflow, instance string) error {
	msg := &nats.Msg{Subject: streams.WorkSubject(tenant, workflow, instance), Header: nats.Header{}}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, natsclient.AckTimeout)
	defer cancel()
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("workqueue: make %s %s due: %w", workflow, instance, err)
	}
	return nil
}

// Unschedule removes the schedules of a workflow's instance, if there are any.
func Unschedule(
	ctx context.Context,
	js jetstream.JetStream,
	tenant contextkit.TenantID,
	workflow, instance string,
) error {
	stream, err := js.Stream(ctx, streams.Work)
	if err != nil {
		return fmt.Errorf("workqueue: stream %s: %w", streams.Work, err)
	}
	for _, subject := range []string{
		streams.LaterSubject(tenant, workflow, instance), streams.RetrySubject(tenant, workflow, instance),
	} {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("workqueue: remove %s: %w", subject, err)
		}
	}
	return nil
}

// CountRetries returns the number of a tenant's instances whose next attempt is scheduled
// ([streams.RetrySubject]); the zero tenant: of all tenants. The number may be behind.
func CountRetries(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID) (int64, error) {
	subject := "retry.*.*.*"
	if !tenant.IsZero() {
		subject = streams.RetrySubject(tenant, "*", "*")
	}
	return natsclient.CountAfter(ctx, js, streams.Work, subject, 0)
}
