package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// AuditRecord is a decision on a call, as the audit stream keeps it.
type AuditRecord struct {
	Time          time.Time `json:"time"`
	Decision      string    `json:"decision"` // "denied" or "allowed"
	Reason        string    `json:"reason,omitempty"`
	Principal     string    `json:"principal,omitempty"`
	Tenant        string    `json:"tenant,omitempty"`
	Procedure     string    `json:"procedure"`
	Right         string    `json:"right,omitempty"`
	Resource      string    `json:"resource,omitempty"`
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
	// Suppressed is how many denials of the same caller before this one were not kept,
	// since they came too fast.
	Suppressed int64 `json:"suppressed,omitempty"`
}

// auditScan is how many records are read at most for one answer.
const auditScan = 20_000

// AuditPlatform is the name under which the audit stream keeps what concerns no
// tenant.
const AuditPlatform = platformToken

// AuditSubjectOf is the subject of a tenant's audit records by its name, which may
// be [AuditPlatform]; "" matches all.
func AuditSubjectOf(name string) string {
	if name == "" {
		name = "*"
	}
	return "audit." + name
}

// AuditRecords calls each for the audit records under a subject, the newest first,
// from before a number (0: from the newest) on, until it returns false. It returns
// the number to go on before, 0 when there are no more: it may be that not all that
// there are have been looked at.
func AuditRecords(ctx context.Context, js jetstream.JetStream, subject string, before uint64, each func(AuditRecord) bool) (next uint64, err error) {
	return readNewest(ctx, js, StreamAudit, subject, before, auditScan, func(msg *jetstream.RawStreamMsg) bool {
		var record AuditRecord
		return json.Unmarshal(msg.Data, &record) != nil || each(record) // else not for us to understand
	})
}

// FollowAudit calls each for the audit records under a subject that are made from
// now on, until ctx ends or each fails.
func FollowAudit(ctx context.Context, js jetstream.JetStream, subject string, each func(AuditRecord) error) error {
	consumer, err := js.OrderedConsumer(ctx, StreamAudit, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: followIdle})
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
