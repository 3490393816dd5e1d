package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Record is a decision on a call, as the audit stream stores it.
type Record struct {
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
	// Routing is the routing epoch, Node the id of the node and Attempts the number of upstream calls, if the call was
	// routed.
	Routing  uint64 `json:"routing_revision,omitempty"`
	Node     string `json:"node,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	// Waited is the time spent waiting between attempts, in milliseconds.
	Waited float64 `json:"waited_ms,omitempty"`
	// Milliseconds is the duration of the call.
	Milliseconds float64 `json:"ms"`
	// Suppressed is the number of records of the same caller that the rate limit dropped before this one: denials, or
	// an operator's calls for tenants.
	Suppressed int64 `json:"suppressed,omitempty"`
	// Read reports that the method changes nothing. Records of earlier versions do not have it.
	Read bool `json:"read,omitempty"`
	// Request are the fields that the request set, and Changes the changes that the node reported. Truncated reports
	// that the record does not contain all of them.
	Request   []Field  `json:"request,omitempty"`
	Changes   []Change `json:"changes,omitempty"`
	Truncated bool     `json:"truncated,omitempty"`
}

// Field is a field of a request.
type Field struct {
	Name string `json:"n"`
	// Value is its value; nil: it is not recorded.
	Value *string `json:"v,omitempty"`
	// Bytes is its size in the request.
	Bytes int `json:"b,omitempty"`
	// List reports that Value has the values of a repeated field.
	List bool `json:"-"`
}

// Change is a value before and after a call; "": no value.
type Change struct {
	Name   string `json:"n"`
	Before string `json:"a,omitempty"`
	After  string `json:"b,omitempty"`
}

// scanLimit bounds the records that are read for one page.
const scanLimit = 20_000

// idleTimeout is the time for which the server stores the consumer of a reader that has ended.
const idleTimeout = 30 * time.Second

// Bounds of a record's texts, in encoded bytes (see [excerpt.Text]).
const (
	maxName     = excerpt.Name
	maxResource = 512
	maxReason   = 1 << 10
)

// Bounded returns the record with every text truncated to its bound, so that its JSON has at most 4 KiB for any
// request.
func (r Record) Bounded() Record {
	for _, name := range []*string{
		&r.Decision, &r.Principal, &r.Tenant, &r.Procedure, &r.Right, &r.Client, &r.Code, &r.CorrelationID, &r.TraceID,
		&r.RequestID, &r.Node,
	} {
		*name = excerpt.Text(*name, maxName)
	}
	r.Resource, r.Reason = excerpt.Text(r.Resource, maxResource), excerpt.Text(r.Reason, maxReason)
	return r.boundedDetails()
}

// Class is a class of an account's records. Each class has a separate subject, so that records of one class cannot
// displace records of another.
type Class string

// Classes of audit records.
const (
	// ClassOperator are actions of principals that act for every tenant.
	ClassOperator Class = "operator"
	// ClassRead are reads of tenants' data by principals that act for every tenant.
	ClassRead Class = "read"
	// ClassTenant are audited actions of principals that act for the tenant alone.
	ClassTenant Class = "tenant"
	// ClassDenied are denials.
	ClassDenied Class = "denied"
	// ClassDirect are calls that reached a node without passing a gateway, as the node records them.
	ClassDirect Class = "direct"
)

// GatewayClasses returns the classes of the records that gateways write.
func GatewayClasses() []Class { return []Class{ClassOperator, ClassRead, ClassTenant, ClassDenied} }

// Subject returns the subject of an account's audit records of a class.
func Subject(account streams.Account, class Class) string {
	return "audit." + string(account) + "." + string(class)
}

// subjects returns the subjects of an account's audit records of all classes, including the single subject of earlier
// versions; "": the subject of the records of all accounts.
func subjects(account streams.Account) []string {
	if account == "" {
		return []string{"audit.>"}
	}
	return []string{"audit." + string(account), "audit." + string(account) + ".*"}
}

// Read calls each for the audit records of an account ("": all accounts), with the times at which NATS stored them, the
// last stored first, until it returns false. It starts before a sequence (0: with the newest record), and returns the
// sequence before which the next call continues; 0: there are no more records. It reads at most [scanLimit] records.
func Read(
	ctx context.Context, js jetstream.JetStream, account streams.Account, before uint64,
	each func(record Record, stored time.Time) bool,
) (next uint64, err error) {
	return natsclient.ReadNewest(
		ctx, js, streams.Audit, subjects(account), before, scanLimit, func(msg *jetstream.RawStreamMsg) bool {
			record, ok := parse(msg.Subject, msg.Header, msg.Data)
			return !ok || each(record, msg.Time)
		},
	)
}

// Follow calls each for the audit records of an account ("": all accounts) that are stored after it has called
// following, until ctx ends or each returns an error. It calls following once.
func Follow(
	ctx context.Context, js jetstream.JetStream, account streams.Account, following func(), each func(Record) error,
) error {
	consumer, err := js.OrderedConsumer(
		ctx, streams.Audit,
		jetstream.OrderedConsumerConfig{
			FilterSubjects:    subjects(account),
			DeliverPolicy:     jetstream.DeliverNewPolicy,
			InactiveThreshold: idleTimeout,
		},
	)
	if err != nil {
		return fmt.Errorf("auditlog: follow audit: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("auditlog: follow audit: %w", err)
	}
	defer messages.Stop()
	following()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			continue // the consumer recreates itself
		}
		if err != nil {
			return fmt.Errorf("auditlog: follow audit: %w", err)
		}
		record, ok := parse(msg.Subject(), msg.Headers(), msg.Data())
		if !ok {
			continue
		}
		if err := each(record); err != nil {
			return err
		}
	}
}

// parse parses a message of the stream AUDIT. ok is false if another version wrote the message, or if the server
// published it as the answer to a request whose reply subject belongs to AUDIT, since NATS does not check whether the
// requester may publish to its reply subject. Such an answer has no procedure, or the headers of a direct get of a
// message with another subject.
func parse(subject string, header nats.Header, data []byte) (record Record, ok bool) {
	for _, from := range header[jetstream.SubjectHeader] {
		if from != subject {
			return Record{}, false
		}
	}
	err := json.Unmarshal(data, &record)
	return record, err == nil && record.Procedure != ""
}
