package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/nats-io/nats.go/jetstream"
)

// AuditRecord is a decision on a call, as the audit stream stores it.
type AuditRecord struct {
	Time          time.Time `json:"time"`
	Decision      string    `json:"decision"` // "denied" or "allowed"
	Reason        string    `json:"reason,omitempty"`
	Principal     string    `json:"principal,omitempty"`
	Tenant        string    `json:"tenant,omitempty"`
	Procedure     string    `json:"procedure"`
	Right         string    `json:"right,omitempty"`
	Resource      string    `json:"resource,omitempty"`
	Client        string    `json:"client,omitempty"` // the address of the client
	Code          string    `json:"code"`
	CorrelationID string    `json:"correlation_id"`
	TraceID       string    `json:"trace_id"`
	RequestID     string    `json:"request_id"`
	// How the call was routed, once it was.
	Routing  uint64 `json:"routing_revision,omitempty"`
	Node     string `json:"node,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	// Waited is the milliseconds spent waiting between attempts.
	Waited float64 `json:"waited_ms,omitempty"`
	// Milliseconds since the call began.
	Milliseconds float64 `json:"ms"`
	// Suppressed is how many records of the same caller before this one, denials or an
	// operator's calls for tenants, were not stored, because they came too fast.
	Suppressed int64 `json:"suppressed,omitempty"`
}

// auditScan is how many records are read at most for one answer.
const auditScan = 20_000

// auditIdle is how long the server stores the consumer of a reader that has ended.
const auditIdle = 30 * time.Second

// auditMessageBytes bounds a message of the audit stream: a record that is
// [AuditRecord.Bounded], as JSON, and the headers of the transport contract.
const auditMessageBytes = 6 << 10

// Bounds of a record's texts, in encoded bytes (see [excerpt.Text]).
const (
	auditName     = excerpt.Name
	auditResource = 512
	auditReason   = 1 << 10
)

// Bounded returns the record with every text cut to its bound, so that the record takes at
// most 4 KiB as JSON whatever the request was.
func (r AuditRecord) Bounded() AuditRecord {
	for _, name := range []*string{&r.Decision, &r.Principal, &r.Tenant, &r.Procedure, &r.Right, &r.Client, &r.Code, &r.CorrelationID, &r.TraceID, &r.RequestID, &r.Node} {
		*name = excerpt.Text(*name, auditName)
	}
	r.Resource, r.Reason = excerpt.Text(r.Resource, auditResource), excerpt.Text(r.Reason, auditReason)
	return r
}

// AuditClass separates the records of an account: each class has a subject of its own, so
// that records of one class cannot displace those of another.
type AuditClass string

// Classes of audit records.
const (
	// AuditOperator are actions of principals that act for every tenant.
	AuditOperator AuditClass = "operator"
	// AuditRead are such principals' reads of tenants' data.
	AuditRead AuditClass = "read"
	// AuditTenant are audited actions of a tenant's own principals.
	AuditTenant AuditClass = "tenant"
	// AuditDenied are denials.
	AuditDenied AuditClass = "denied"
)

// AuditSubject returns the subject of an account's audit records of a class.
func AuditSubject(account Account, class AuditClass) string {
	return "audit." + string(account) + "." + string(class)
}

// auditSubjects returns the subjects that match an account's audit records of all classes, and
// the records of earlier versions, which had one subject per tenant. "" matches every
// account's.
func auditSubjects(account Account) []string {
	if account == "" {
		return []string{"audit.>"}
	}
	return []string{"audit." + string(account), "audit." + string(account) + ".*"}
}

// AuditRecords calls each for an account's audit records ("": all accounts'), the newest
// first, starting before a sequence (0: at the newest), until it returns false. It returns the
// sequence to continue before, 0 when there are no more; existing records may remain
// unexamined.
func AuditRecords(ctx context.Context, js jetstream.JetStream, account Account, before uint64, each func(AuditRecord) bool) (next uint64, err error) {
	return readNewest(ctx, js, StreamAudit, auditSubjects(account), before, auditScan, func(msg *jetstream.RawStreamMsg) bool {
		var record AuditRecord
		return json.Unmarshal(msg.Data, &record) != nil || each(record) // else not for us to understand
	})
}

// FollowAudit calls each for an account's audit records ("": all accounts') that are stored
// from now on, until ctx ends or each fails.
func FollowAudit(ctx context.Context, js jetstream.JetStream, account Account, each func(AuditRecord) error) error {
	consumer, err := js.OrderedConsumer(ctx, StreamAudit, jetstream.OrderedConsumerConfig{FilterSubjects: auditSubjects(account), DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: auditIdle})
	if err != nil {
		return fmt.Errorf("backbone: follow audit: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("backbone: follow audit: %w", err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			continue // the consumer makes itself anew
		}
		if err != nil {
			return fmt.Errorf("backbone: follow audit: %w", err)
		}
		var record AuditRecord
		if json.Unmarshal(msg.Data(), &record) != nil {
			continue // not for us to understand
		}
		if err := each(record); err != nil {
			return err
		}
	}
}
