package natstest

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
)

// Strange is a message of the journal as another program may publish it.
type Strange struct {
	Name string
	// Fault is why it is no event; "": it is one.
	Fault  journal.Fault
	header map[string][]string // changes of the headers of an event; nil removes one
	data   *string
}

// StrangeMessages are messages of other producers: each header absent, empty, unknown, foreign or
// twice, and all kinds of data.
func StrangeMessages() []Strange {
	data := func(text string) *string { return &text }
	return []Strange{
		{Name: "without-id", header: map[string][]string{"ce-id": nil}},
		{Name: "without-id-again", header: map[string][]string{"ce-id": nil}},
		{Name: "empty-id", header: map[string][]string{"ce-id": {""}}},
		{Name: "shared-id", header: map[string][]string{"ce-id": {"1"}}},
		{Name: "shared-id-again", header: map[string][]string{"ce-id": {"1"}}},
		{Name: "two-ids", header: map[string][]string{"ce-id": {"1", "2"}}},
		{Name: "long-id", header: map[string][]string{"ce-id": {strings.Repeat("x", 5000)}}},
		{Name: "without-time", header: map[string][]string{"ce-time": nil}},
		{Name: "no-time", header: map[string][]string{"ce-time": {"today"}}},
		{Name: "without-tenant", header: map[string][]string{contextkit.NATSTenantID: nil}},
		{Name: "empty-tenant", header: map[string][]string{contextkit.NATSTenantID: {""}}},
		{Name: "without-aggregate", header: map[string][]string{"ce-aggregatetype": nil, "ce-aggregateid": nil}},
		{
			Name: "without-contract",
			header: map[string][]string{
				contextkit.NATSTraceparent: nil, contextkit.NATSCorrelationID: nil, contextkit.NATSRequestID: nil,
				contextkit.NATSTraceID: nil,
			},
		},
		{
			Name: "unknown-headers",
			header: map[string][]string{
				"x-vendor": {"a", "b"}, "ce-specversion": {"2.0"}, "content-type": {"text/plain"},
				textproto.CanonicalMIMEHeaderKey(contextkit.NATSTenantID): {"globex"},
			},
		},
		{Name: "two-times", header: map[string][]string{"ce-time": {"2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"}}},
		{
			Name:   "without-source",
			header: map[string][]string{"ce-source": nil, "ce-specversion": nil, "content-type": nil},
		},
		{Name: "foreign-source", header: map[string][]string{"ce-source": {"https://other.example"}}},
		{Name: "unknown-model", header: map[string][]string{"ce-model": {"; no model"}}},
		{Name: "foreign-model", header: map[string][]string{"ce-model": {"foreign;applied=18446744073709551615"}}},
		{Name: "foreign-file-model", header: map[string][]string{"ce-model": {"foreign;file=18446744073709551615"}}},
		{
			Name: "future-file-model",
			header: map[string][]string{
				"ce-model": {"foreign;file=9"}, "ce-time": {"2999-01-02T03:04:05Z"},
			},
		},
		{Name: "future-data-version", header: map[string][]string{"ce-dataversion": {"2"}}},
		{Name: "last-data-version", header: map[string][]string{"ce-dataversion": {"9223372036854775807"}}},
		{
			Name: "unknown-key",
			header: map[string][]string{
				"ce-idempotencykey": {"k", "l"}, "ce-commandfingerprint": {"\"no\" fingerprint"},
			},
		},
		{Name: "unknown-contract", header: map[string][]string{
			contextkit.NATSTraceparent: {"no trace"}, contextkit.NATSTracestate: {"no,=state"},
			contextkit.NATSTraceID:       {"z"},
			contextkit.NATSCorrelationID: {"c", "d"}, contextkit.NATSRequestID: {"not an id"},
			contextkit.NATSCausationID: {""}, contextkit.NATSCausationDepth: {"deep"},
		}},
		{
			Name:   "foreign-tenant",
			Fault:  journal.FaultTenant,
			header: map[string][]string{contextkit.NATSTenantID: {"globex"}},
		},
		{Name: "no-tenant", Fault: journal.FaultTenant, header: map[string][]string{contextkit.NATSTenantID: {"*"}}},
		{
			Name:   "two-tenants",
			Fault:  journal.FaultTenant,
			header: map[string][]string{contextkit.NATSTenantID: {"acme", "globex"}},
		},
		{
			Name:   "foreign-aggregate",
			Fault:  journal.FaultAggregate,
			header: map[string][]string{"ce-aggregateid": {"another"}},
		},
		{
			Name:   "foreign-aggregate-type",
			Fault:  journal.FaultAggregate,
			header: map[string][]string{"ce-aggregatetype": {"another"}},
		},
		{Name: "two-types", Fault: journal.FaultHeader, header: map[string][]string{"ce-type": {"opened", "closed"}}},
		{
			Name:   "two-versions",
			Fault:  journal.FaultHeader,
			header: map[string][]string{"ce-aggregateversion": {"1", "2"}},
		},
		{
			Name:   "negative-version",
			Fault:  journal.FaultHeader,
			header: map[string][]string{"ce-aggregateversion": {"-1"}},
		},
		{
			Name:   "unknown-data-version",
			Fault:  journal.FaultHeader,
			header: map[string][]string{"ce-dataversion": {"new"}},
		},
		{
			Name:   "beyond-data-versions",
			Fault:  journal.FaultHeader,
			header: map[string][]string{"ce-dataversion": {"9223372036854775808"}},
		},
		{Name: "no-data-version", Fault: journal.FaultHeader, header: map[string][]string{"ce-dataversion": {"0"}}},
		{Name: "without-type", Fault: journal.FaultHeader, header: map[string][]string{"ce-type": nil}},
		{Name: "without-version", Fault: journal.FaultHeader, header: map[string][]string{"ce-aggregateversion": nil}},
		{Name: "no-version", Fault: journal.FaultHeader, header: map[string][]string{"ce-aggregateversion": {"first"}}},
		{Name: "deep", data: data(nested(9_990))},
		{Name: "too-deep", Fault: journal.FaultData, data: data(nested(10_001))},
		{Name: "text", Fault: journal.FaultData, data: data("hello")},
		{Name: "scalar", Fault: journal.FaultData, data: data("42")},
		{Name: "null", Fault: journal.FaultData, data: data("null")},
		{Name: "more-than-object", Fault: journal.FaultData, data: data(`{} and more`)},
	}
}

// PublishStrange publishes a message by hand for the tenant's aggregate, as the event of a type
// and a version, and returns its sequence.
func PublishStrange(
	t testing.TB, js jetstream.JetStream, s Strange, tenant, aggregateType, id, eventType string, version int64,
	data string,
) uint64 {
	t.Helper()
	msg := &nats.Msg{
		Subject: "events." + tenant + "." + aggregateType + "." + id,
		Data:    []byte(data),
		Header: nats.Header{
			contextkit.NATSTenantID: {tenant}, "ce-specversion": {"1.0"},
			"ce-id": {"other-" + aggregateType + "-" + id}, "ce-source": {"/other"}, "ce-type": {eventType},
			"ce-time": {"2026-01-02T03:04:05Z"}, "content-type": {"application/json"},
			"ce-aggregateversion": {fmt.Sprint(version)},
			"ce-aggregatetype":    {aggregateType}, "ce-aggregateid": {id}, contextkit.NATSCorrelationID: {"c"},
			contextkit.NATSRequestID: {"r"},
		},
	}
	maps.Copy(msg.Header, s.header)
	for _, name := range slices.Collect(maps.Keys(s.header)) {
		if s.header[name] == nil {
			delete(msg.Header, name)
		}
	}
	if s.data != nil {
		msg.Data = []byte(*s.data)
	}
	ack, err := js.PublishMsg(t.Context(), msg)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	return ack.Sequence
}

// nested returns an object with members that events of wallets and transfers have, and one that is nested deeply: JSON
// has no bound (RFC 8259 §9), encoding/json stops at 10,000.
func nested(depth int) string {
	return `{"owner":"ada","amount":10,"from":"a","to":"b","more":` + strings.Repeat("[", depth) +
		strings.Repeat("]", depth) + `}`
}
