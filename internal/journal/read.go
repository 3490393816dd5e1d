package journal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
)

// Message is a stored message of the journal. Another program may have published it.
type Message struct {
	Subject  string
	Header   nats.Header
	Data     []byte
	Sequence uint64
	// Time is when it was stored.
	Time time.Time
	// CopiedTo is the subject of the message if this program has copied it from another subject, which is then Subject;
	// "": it is an original. The ce-id of a copy may be derived from the original's place.
	CopiedTo string
}

// RawMessage returns a message that was read from the journal's stream.
func RawMessage(msg *jetstream.RawStreamMsg) Message {
	return Message{
		Subject:  msg.Subject,
		Header:   msg.Header,
		Data:     msg.Data,
		Sequence: msg.Sequence,
		Time:     msg.Time,
	}
}

// ErrMalformedEvent is wrapped when a message in the journal is not an event, by an
// [*UnreadableError].
var ErrMalformedEvent = errors.New("malformed event")

// Fault is the reason why a message of the journal is unreadable.
type Fault string

// Faults.
const (
	FaultSubject   Fault = "subject"   // it is not of the form events.TENANT.TYPE.ID
	FaultTenant    Fault = "tenant"    // the tenant's header is not the subject's tenant
	FaultAggregate Fault = "aggregate" // an aggregate's header is not the subject's
	FaultHeader    Fault = "header"    // the type, or a version, is missing or malformed
	FaultData      Fault = "data"      // the data is not a JSON object
	FaultSize      Fault = "size"      // it exceeds MaxMessageBytes
)

// Faults returns all faults.
func Faults() []Fault {
	return []Fault{FaultSubject, FaultTenant, FaultAggregate, FaultHeader, FaultData, FaultSize}
}

// UnreadableError reports that a message of the journal is not an event. It wraps [ErrMalformedEvent].
type UnreadableError struct {
	Fault Fault
	// Tenant, AggregateType and AggregateID are parsed from the subject; zero values: it does not name them.
	Tenant                     contextkit.TenantID
	AggregateType, AggregateID string
	// Version is the aggregate's version in the message's headers; 0: none.
	Version  int64
	Sequence uint64
	// Stored is when the message was stored. With Sequence it identifies the message.
	Stored time.Time

	detail string
}

// Error describes the fault for operators. It contains the sequence, and quotes the message.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%v: at sequence %d: %s", ErrMalformedEvent, e.Sequence, e.detail)
}

// Unwrap returns [ErrMalformedEvent].
func (e *UnreadableError) Unwrap() error { return ErrMalformedEvent }

// ReadEvent parses the event of a message of the journal. All roles use it, so that they agree on which messages are
// events. It accepts events of other producers:
//
//   - tenant and aggregate are those of the subject; their headers may be missing, but must not differ
//   - the answer to a request for another message is not an event, although it has that message's headers
//   - without a usable ce-id, the id is derived from the message's place, see [placeID]
//   - without a usable ce-time, the time is when the message was stored
//   - without a usable trace id, the trace is new; without a usable correlation id, it is the event's id
//   - an empty message has the data {}
//   - unknown headers are ignored
//
// A value is usable if it occurs once and is well-formed. The data of the event is valid JSON. The error is an
// [*UnreadableError].
func ReadEvent(m Message) (Event, error) { return m.read() }

func (m *Message) read() (Event, error) {
	tenant, aggregateType, aggregateID := m.Names()
	version, err := strconv.ParseInt(once(m.Header, ceVersion), 10, 64)
	if err != nil {
		version = 0
	}
	unreadable := func(fault Fault, format string, args ...any) (Event, error) {
		return Event{}, &UnreadableError{
			Fault:         fault,
			Tenant:        tenant,
			AggregateType: aggregateType,
			AggregateID:   aggregateID,
			Version:       max(version, 0),
			Sequence:      m.Sequence,
			Stored:        m.Time,
			detail:        fmt.Sprintf(format, args...),
		}
	}
	switch {
	case tenant.IsZero() || !isAggregate(aggregateType, aggregateID):
		return unreadable(FaultSubject, "the subject %.200q is not an event's", m.Subject)
	case m.isAnswer():
		return unreadable(FaultSubject, "it is the answer to a request for a message of %.200q",
			m.Header[jetstream.SubjectHeader])
	case !agrees(m.Header, ceAggregateType, aggregateType), !agrees(m.Header, ceAggregateID, aggregateID):
		return unreadable(
			FaultAggregate,
			"the headers name another aggregate than the subject: %.200q %.200q",
			m.Header[ceAggregateType],
			m.Header[ceAggregateID],
		)
	case version < 1:
		return unreadable(FaultHeader, "%s %.200q", ceVersion, m.Header[ceVersion])
	}
	e := Event{
		ID: once(
			m.Header,
			HeaderID,
		),
		Type:          once(m.Header, HeaderType),
		AggregateType: aggregateType,
		AggregateID:   aggregateID,
		Version:       version,
		Data:          m.Data,
		DataVersion:   1,
		Sequence:      m.Sequence,
		Command: CommandRef{
			IdempotencyKey: m.Header.Get(ceIdempotencyKey),
			Fingerprint:    m.Header.Get(ceFingerprint),
		},
		Principal: contextkit.DecodeText(once(m.Header, cePrincipal)),
		Model:     parseModelRef(m.Header.Get(ceModel)),
	}
	if e.Type == "" {
		return unreadable(FaultHeader, "%s %.200q", HeaderType, m.Header[HeaderType])
	}
	if text := m.Header.Get(ceDataVersion); text != "" {
		if e.DataVersion, err = strconv.Atoi(once(m.Header, ceDataVersion)); err != nil || e.DataVersion < 1 {
			return unreadable(FaultHeader, "%s %.200q", ceDataVersion, m.Header[ceDataVersion])
		}
	}
	if !contextkit.ValidID(e.ID) || strings.HasPrefix(e.ID, placePrefix) && m.CopiedTo == "" {
		e.ID = placeID(m.Sequence)
	}
	if e.Time, err = time.Parse(time.RFC3339Nano, once(m.Header, ceTime)); err != nil {
		e.Time = m.Time.UTC()
	}
	if e.Context, err = contextkit.ExtractNATSOf(m.Header, tenant, e.ID); err != nil {
		return unreadable(FaultTenant, "%v", err)
	}
	switch {
	case len(m.Data) > streams.MaxMessageBytes:
		return unreadable(
			FaultSize,
			"%d bytes of data, and an event has at most %d",
			len(m.Data),
			streams.MaxMessageBytes,
		)
	case len(m.Data) == 0:
		e.Data = emptyObject
	case !isObject(m.Data):
		return unreadable(FaultData, "the data is not a JSON object: %.60q", m.Data)
	}
	return e, nil
}

// isAnswer reports whether the server has published the message as the answer to a direct get (NATS ADR-31) of a
// message with another subject. NATS does not check whether the client may publish to the reply subject of its request,
// so that a user could publish a message that it may read as an event.
func (m *Message) isAnswer() bool {
	stored := cmp.Or(m.CopiedTo, m.Subject)
	for _, from := range m.Header[jetstream.SubjectHeader] {
		if from != stored {
			return true
		}
	}
	return false
}

// UniqueID returns an id that no other event of the platform has. The ID of an event is unique only for its producer,
// and a producer may publish an event twice.
func (e *Event) UniqueID() string {
	return UniqueID(e.ID, e.AggregateType, e.AggregateID, e.Version)
}

// UniqueID returns the [Event.UniqueID] of an event with these values.
func UniqueID(id, aggregateType, aggregateID string, version int64) string {
	if contextkit.IsNewID(id) || strings.HasPrefix(id, placePrefix) {
		return id
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%s", aggregateType, aggregateID, version, id))
	return "by-" + hex.EncodeToString(sum[:16])
}

// emptyObject is the data of an event without data, which CloudEvents admit (v1.0 §3.2).
var emptyObject = []byte("{}")

// Names returns the names in the subject (see [streams.EventSubject]); zero values for names that it lacks.
func (m *Message) Names() (tenant contextkit.TenantID, aggregateType, aggregateID string) {
	rest, ok := strings.CutPrefix(m.Subject, "events.")
	if !ok {
		return tenant, "", ""
	}
	name, rest, _ := strings.Cut(rest, ".")
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil {
		return tenant, "", ""
	}
	aggregateType, aggregateID, _ = strings.Cut(rest, ".")
	return tenant, aggregateType, aggregateID
}

// Bounds of the names of aggregates, as in the API.
const maxTypeLength, maxAggregateIDLength = 63, 128

// isAggregate reports whether the API allows an aggregate with these names.
func isAggregate(aggregateType, id string) bool {
	if aggregateType == "" || len(aggregateType) > maxTypeLength || id == "" || len(id) > maxAggregateIDLength {
		return false
	}
	for i := range len(aggregateType) {
		c := aggregateType[i]
		if (c < 'a' || c > 'z') && (i == 0 || (c < '0' || c > '9') && c != '_') {
			return false
		}
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// once returns the value of a header that occurs once; otherwise "".
func once(header nats.Header, name string) string {
	if values := header[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// agrees reports whether a header is missing, empty, or has the value.
func agrees(header nats.Header, name, value string) bool {
	for _, v := range header[name] {
		if v != value && v != "" {
			return false
		}
	}
	return true
}

// isObject reports whether data is exactly one JSON object.
func isObject(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && json.Valid(data)
}

// placePrefix begins ids that are derived from a message's place. Ids of producers do not have it.
const placePrefix = "at-"

// placeID returns the id of an event without a usable ce-id: a hash of its sequence, since a sequence would reveal the
// number of all tenants' events.
func placeID(sequence uint64) string { return placePrefix + placeHash(sequence) }

func placeHash(sequence uint64) string {
	sum := sha256.Sum256([]byte(streams.Events + "/" + strconv.FormatUint(sequence, 10)))
	return hex.EncodeToString(sum[:16])
}

// messageID returns the id by which the journal's record recognizes the message at a sequence: its ce-id, or a hash of
// its place if it has none. After a restore, another message at the same sequence has another id.
func messageID(header nats.Header, sequence uint64) string {
	if id := header.Get(HeaderID); id != "" {
		return id
	}
	return placeHash(sequence)
}
