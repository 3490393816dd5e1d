package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DueWork is a message of the stream [StreamWork]: the time of a workflow's instance has come.
type DueWork struct {
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

// ReadDueWork calls each for the due work of a tenant, the zero tenant: of all, in order from a
// sequence on (1: all), for at most the given number of messages (0: all), until it returns an
// error, which is returned. malformed receives messages that cannot be read. Reading takes
// nothing away, and needs no consumer.
func ReadDueWork(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, from uint64, most int, each func(DueWork) error, malformed func(sequence uint64, subject string, err error)) error {
	subject := "work.*.*.*"
	if !tenant.IsZero() {
		subject = WorkSubject(tenant, "*", "*")
	}
	return readBatches(ctx, js, StreamWork, subject, from, most, func(msg *jetstream.RawStreamMsg) error {
		work, err := parseDueWork(msg)
		if err != nil {
			malformed(msg.Sequence, msg.Subject, err)
			return nil
		}
		return each(work)
	})
}

func parseDueWork(msg *jetstream.RawStreamMsg) (DueWork, error) {
	parts := strings.SplitN(msg.Subject, ".", 4) // see [WorkSubject]
	if len(parts) != 4 {
		return DueWork{}, errors.New("the subject does not name an instance")
	}
	tenant, err := contextkit.ParseTenantID(parts[1])
	if err != nil {
		return DueWork{}, err
	}
	rc, err := contextkit.ExtractNATS(msg.Header)
	if err != nil {
		return DueWork{}, err
	}
	if rc.TenantID != tenant {
		return DueWork{}, fmt.Errorf("it carries the contract of tenant %q", rc.TenantID)
	}
	return DueWork{Sequence: msg.Sequence, Tenant: tenant, Workflow: parts[2], Instance: parts[3], Context: rc, Time: msg.Time}, nil
}

// RemoveDueWork removes a message of completed work. A missing message is no error.
func RemoveDueWork(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	if err := removeMessage(ctx, js, StreamWork, sequence); err != nil {
		return fmt.Errorf("backbone: remove due work %d: %w", sequence, err)
	}
	return nil
}

// MakeDue makes a workflow's instance due now.
func MakeDue(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, workflow, instance string) error {
	msg := &nats.Msg{Subject: WorkSubject(tenant, workflow, instance), Header: nats.Header{}}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("backbone: make %s %s due: %w", workflow, instance, err)
	}
	return nil
}

// Unschedule removes the schedules of a workflow's instance, if there are any.
func Unschedule(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, workflow, instance string) error {
	stream, err := js.Stream(ctx, StreamWork)
	if err != nil {
		return fmt.Errorf("backbone: stream %s: %w", StreamWork, err)
	}
	for _, subject := range []string{LaterSubject(tenant, workflow, instance), RetrySubject(tenant, workflow, instance)} {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("backbone: remove %s: %w", subject, err)
		}
	}
	return nil
}

// removeMessage removes a message of a stream, if it is there. The client library's call hides
// the server's code.
func removeMessage(ctx context.Context, js jetstream.JetStream, stream string, sequence uint64) error {
	request, err := json.Marshal(map[string]any{"seq": sequence, "no_erase": true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, request)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	err = json.Unmarshal(reply.Data, &answer)
	switch {
	case err != nil, answer.Error == nil:
		return err
	case answer.Error.ErrorCode == errCodeDeleteFailed && absent[answer.Error.Description]:
		return nil
	}
	return answer.Error
}

// errCodeDeleteFailed is the server's code for a message that it did not delete, and absent has
// its descriptions of a missing message.
const errCodeDeleteFailed jetstream.ErrorCode = 10057

var absent = map[string]bool{"no message found": true, "deleted message": true, "stream store EOF": true}

// CountEvents returns the number of messages of the journal on a subject, which may have
// wildcards, after a sequence. It reads one of them, from any replica: the number may be behind.
func CountEvents(ctx context.Context, js jetstream.JetStream, subject string, after uint64) (int64, error) {
	return countAfter(ctx, js, StreamEvents, subject, after)
}

// CountRetries returns the number of a tenant's instances whose next attempt is scheduled
// ([RetrySubject]); the zero tenant: of all tenants. The number may be behind.
func CountRetries(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID) (int64, error) {
	subject := "retry.*.*.*"
	if !tenant.IsZero() {
		subject = RetrySubject(tenant, "*", "*")
	}
	return countAfter(ctx, js, StreamWork, subject, 0)
}

// countAfter is CountEvents for any stream with direct gets.
func countAfter(ctx context.Context, js jetstream.JetStream, stream, subject string, after uint64) (int64, error) {
	request, err := json.Marshal(map[string]any{"seq": after + 1, "next_by_subj": subject, "batch": 1})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, request)
	if err != nil {
		return 0, fmt.Errorf("backbone: count %s: %w", subject, err)
	}
	return pendingOf(reply)
}

// pendingOf returns the number of messages that an answer to a batch of one stands for (NATS
// ADR-31).
func pendingOf(reply *nats.Msg) (int64, error) {
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return 0, nil
	default:
		return 0, fmt.Errorf("backbone: a direct get is answered %s %s", status, reply.Header.Get("Description"))
	}
	behind, err := strconv.ParseInt(reply.Header.Get("Nats-Num-Pending"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("backbone: a direct get is answered without a number of messages: %w", err)
	}
	return behind + 1, nil
}
