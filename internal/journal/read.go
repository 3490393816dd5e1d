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
	// CopiedTo is the subject of the message if it is a copy that this program has stored elsewhere, and
	// Subject that of the original; "": it is the original. The ce-id of a copy may be made from the
	// original's place.
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

// Fault is what makes a message of the journal unreadable.
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

// Faults are all faults.
func Faults() []Fault {
	return []Fault{FaultSubject, FaultTenant, FaultAggregate, FaultHeader, FaultData, FaultSize}
}

// UnreadableError reports that a message of the journal is no event. It wraps [ErrMalformedEvent].
type UnreadableError struct {
	Fault Fault
	// Tenant, AggregateType and AggregateID are those of the subject, as far as it names them.
	Tenant                     contextkit.TenantID
	AggregateType, AggregateID string
	// Version is the aggregate's version that the message claims; 0: none.
	Version  int64
	Sequence uint64
	// Stored is when the message was stored. With Sequence it identifies the message.
	Stored time.Time

	detail string
}

// Error describes the fault to operators: it has the sequence, and quotes the message.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%v: at sequence %d: %s", ErrMalformedEvent, e.Sequence, e.detail)
}

// Unwrap returns [ErrMalformedEvent].
func (e *UnreadableError) Unwrap() error { return ErrMalformedEvent }

// ReadEvent returns the event that a message of the journal is. It is the only reading of such
// messages, so that all roles take the same messages for the same events. It is tolerant of other
// producers:
//
//   - tenant and aggregate are those of the subject; headers may be missing, and must not differ
//   - the answer to a request for another message is no event, although it has its headers
//   - without a usable ce-id, the id is made from the message's place, see [placeID]
//   - without a usable ce-time, the time is when the message was stored
//   - without a usable trace or correlation id, these are new; the correlation id is the event's id
//   - an empty message has the data {}
//   - headers that it does not know are ignored
//
// A value is usable if it occurs once and is well-formed. An error is an [*UnreadableError]. The
// data is valid JSON.
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

// isAnswer reports whether the server has published the message as the answer to a direct get
// (NATS ADR-31) of another subject. NATS does not check that the client may publish to the reply
// subject of its request: a user that may read a message that it wrote could so publish it as an
// event.
func (m *Message) isAnswer() bool {
	stored := cmp.Or(m.CopiedTo, m.Subject)
	for _, from := range m.Header[jetstream.SubjectHeader] {
		if from != stored {
			return true
		}
	}
	return false
}

// UniqueID returns an id that no other event of the platform has. The ids of other producers are
// unique for each of them only, and one event published twice has one id in both.
func (e *Event) UniqueID() string {
	return UniqueID(e.ID, e.AggregateType, e.AggregateID, e.Version)
}

// UniqueID is [Event.UniqueID] by what it depends on.
func UniqueID(id, aggregateType, aggregateID string, version int64) string {
	if contextkit.IsNewID(id) || strings.HasPrefix(id, placePrefix) {
		return id
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%s", aggregateType, aggregateID, version, id))
	return "by-" + hex.EncodeToString(sum[:16])
}

// emptyObject is the data of an event without data, which CloudEvents admit (v1.0 §3.2).
var emptyObject = []byte("{}")

// Names returns what the subject names (see [streams.EventSubject]): zero values for what it does not.
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

// Bounds of the names of aggregates, as the API has them.
const maxTypeLength, maxAggregateIDLength = 63, 128

// isAggregate reports whether names are of an aggregate that the API can name.
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

// once returns the value of a header that occurs once, else "".
func once(header nats.Header, name string) string {
	if values := header[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// agrees reports whether a header is missing, empty, or has a value.
func agrees(header nats.Header, name, value string) bool {
	for _, v := range header[name] {
		if v != value && v != "" {
			return false
		}
	}
	return true
}

// isObject reports whether data is a JSON object, and nothing else.
func isObject(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && json.Valid(data)
}

// placePrefix begins ids that are made from a message's place, and no id that a producer gives.
const placePrefix = "at-"

// placeID returns the id of an event without one. It is hashed, since sequences tell how many
// events all tenants have.
func placeID(sequence uint64) string { return placePrefix + placeHash(sequence) }

func placeHash(sequence uint64) string {
	sum := sha256.Sum256([]byte(streams.Events + "/" + strconv.FormatUint(sequence, 10)))
	return hex.EncodeToString(sum[:16])
}

// messageID returns the id by which the journal's record recognises the message at a sequence: its
// ce-id, or a hash of its place if it has none. Another message at the same sequence, after a
// restore, has another id.
func messageID(header nats.Header, sequence uint64) string {
	if id := header.Get(HeaderID); id != "" {
		return id
	}
	return placeHash(sequence)
}
