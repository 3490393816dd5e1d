package journal

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/streams"
)

// Event is a fact about an aggregate, as stored in the journal.
type Event struct {
	// ID is unique in the platform.
	ID string
	// Type is the event's name in the model.
	Type string
	// AggregateType and AggregateID name the aggregate.
	AggregateType string
	AggregateID   string
	// Version is the aggregate's version once the event has happened.
	Version int64
	// Time is when it was decided.
	Time time.Time
	// Data is the event's JSON object.
	Data []byte
	// DataVersion is the version of the form of Data; 0 means 1.
	DataVersion int
	// Sequence is the event's place in the journal; 0 before it is appended.
	Sequence uint64
	// Size is the size of its message in bytes, once it is appended.
	Size int
	// Command names the command that caused the event; the zero value when it
	// came without an idempotency key.
	Command CommandRef
	// Model names the model that decided the event; the zero value: it is not known.
	Model ModelRef
	// Principal is the subject whose command caused the event; "": it is not known.
	Principal string
	// Span is the span id of the event's publication, which is the parent of the event's
	// processing; zero: the parent is the span under which the event is appended.
	Span contextkit.SpanID
	// Context is the contract in the event's headers.
	Context contextkit.RequestContext
}

// CommandRef ties an event to the attempt that caused it.
type CommandRef struct {
	// IdempotencyKey is the client's key.
	IdempotencyKey string
	// Fingerprint is a hash of the command, which distinguishes a retry from another command under
	// the same key.
	Fingerprint string
}

// CloudEvents attributes in the NATS binding's binary mode, and our extension
// attributes. Unknown ones are ignored.
const (
	ceSpecVersion    = "ce-specversion"
	HeaderID         = "ce-id"
	ceSource         = "ce-source"
	HeaderType       = "ce-type"
	ceTime           = "ce-time"
	ceContentType    = "content-type"
	ceVersion        = "ce-aggregateversion"
	ceDataVersion    = "ce-dataversion"
	ceAggregateType  = "ce-aggregatetype"
	ceAggregateID    = "ce-aggregateid"
	ceIdempotencyKey = "ce-idempotencykey"
	ceFingerprint    = "ce-commandfingerprint"
	cePrincipal      = "ce-principal" // encoded by [contextkit.EncodeText]
	ceModel          = "ce-model"     // REVISION;applied=ORDER or REVISION;file=ORDER, see [ModelRef]
)

// eventHeaders is how many headers an event's message has, those of the contract and of
// JetStream included.
const eventHeaders = 24

// Message renders e for publication under ctx's contract.
func (e Event) Message(ctx context.Context, tenant contextkit.TenantID) (*nats.Msg, error) {
	msg := &nats.Msg{
		Subject: streams.EventSubject(tenant, e.AggregateType, e.AggregateID),
		Header:  make(nats.Header, eventHeaders),
		Data:    e.Data,
	}
	if e.Span != (contextkit.SpanID{}) {
		if rc, ok := contextkit.FromContext(ctx); ok {
			rc.SpanID = e.Span
			ctx = contextkit.NewContext(ctx, rc)
		}
	}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return nil, err
	}
	if id := msg.Header.Get(contextkit.NATSTenantID); id != tenant.String() {
		return nil, fmt.Errorf("journal: an event of tenant %q under the context of %q", tenant, id)
	}
	msg.Header.Set(ceSpecVersion, "1.0")
	msg.Header.Set(HeaderID, e.ID)
	msg.Header.Set(ceSource, "/tenants/"+tenant.String()+"/"+e.AggregateType+"/"+e.AggregateID)
	msg.Header.Set(HeaderType, e.Type)
	msg.Header.Set(ceTime, e.Time.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(ceContentType, "application/json")
	msg.Header.Set(ceVersion, strconv.FormatInt(e.Version, 10))
	if e.DataVersion > 1 {
		msg.Header.Set(ceDataVersion, strconv.Itoa(e.DataVersion))
	}
	msg.Header.Set(ceAggregateType, e.AggregateType)
	msg.Header.Set(ceAggregateID, e.AggregateID)
	if e.Model.header != nil {
		msg.Header[ceModel] = e.Model.header // shared: nothing changes it
	}
	if e.Principal != "" {
		msg.Header.Set(cePrincipal, contextkit.EncodeText(excerpt.Text(e.Principal, excerpt.Name)))
	}
	if e.Command.IdempotencyKey != "" {
		msg.Header.Set(ceIdempotencyKey, e.Command.IdempotencyKey)
		msg.Header.Set(ceFingerprint, e.Command.Fingerprint)
	}
	return msg, nil
}

// IsFirst reports whether a message of the journal is an aggregate's first event.
func IsFirst(header nats.Header) bool { return header.Get(ceVersion) == "1" }
