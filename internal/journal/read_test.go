package journal_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

// written is a message of the journal as this program writes it.
func written() journal.Message {
	return journal.Message{
		Subject:  "events.acme.wallet.w",
		Sequence: 7,
		Time:     time.Unix(1_800_000_000, 5),
		Data:     []byte(`{"amount":1}`),
		Header: nats.Header{
			"tenant-id": {
				"acme",
			},
			"ce-specversion": {"1.0"},
			"ce-id":          {"0190b3a1-0000-7000-8000-000000000001"},
			"ce-source":      {"/tenants/acme/wallet/w"},
			"ce-type": {
				"deposited",
			},
			"ce-time":             {"2026-01-02T03:04:05.000000006Z"},
			"content-type":        {"application/json"},
			"ce-aggregateversion": {"3"},
			"ce-dataversion": {
				"2",
			},
			"ce-aggregatetype":      {"wallet"},
			"ce-aggregateid":        {"w"},
			"ce-principal":          {"corp:Zo%C3%AB"},
			"ce-idempotencykey":     {"k"},
			"ce-commandfingerprint": {"f"},
			"x-correlation-id":      {"c"},
			"correlation-id":        {"c"},
			"x-request-id":          {"r"},
			"causation-id":          {"cause"},
			"traceparent":           {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		},
	}
}

func with(change func(m *journal.Message)) journal.Message {
	m := written()
	m.Header = maps.Clone(m.Header)
	change(&m)
	return m
}

func header(name string, values ...string) func(*journal.Message) {
	return func(m *journal.Message) {
		if delete(m.Header, name); len(values) > 0 {
			m.Header[name] = values
		}
	}
}

func data(text string) func(*journal.Message) {
	return func(m *journal.Message) { m.Data = []byte(text) }
}

// TestReadEvent_IsTolerantOfOtherProducers has each header absent, empty, unknown, foreign and
// twice, and all kinds of data.
func TestReadEvent_IsTolerantOfOtherProducers(t *testing.T) {
	stored := written().Time.UTC()
	placed := func(e journal.Event) bool { return strings.HasPrefix(e.ID, "at-") && len(e.ID) == 3+32 }
	for name, row := range map[string]struct {
		message journal.Message
		fault   journal.Fault
		check   func(journal.Event) bool // of an event
	}{
		"written by this version": {message: written(), check: func(e journal.Event) bool {
			return e.ID == "0190b3a1-0000-7000-8000-000000000001" && e.Type == "deposited" && e.Version == 3 &&
				e.DataVersion == 2 && e.Sequence == 7 && e.Principal == "corp:Zoë" &&
				e.Time.Equal(
					time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
				) && e.Command == (journal.CommandRef{IdempotencyKey: "k", Fingerprint: "f"}) &&
				e.Context.CorrelationID == "c" && e.Context.RequestID == "r" && e.Context.CausationID == "cause" &&
				e.Context.TraceIDText() == "4bf92f3577b34da6a3ce929d0e0e4736"
		}},
		"unknown headers": {
			message: with(header("x-future", "a", "b")),
			check:   func(e journal.Event) bool { return e.Version == 3 },
		},

		"no id":                      {message: with(header("ce-id")), check: placed},
		"empty id":                   {message: with(header("ce-id", "")), check: placed},
		"two ids":                    {message: with(header("ce-id", "a", "a")), check: placed},
		"invalid id":                 {message: with(header("ce-id", "a b\tc")), check: placed},
		"id over the maximum length": {message: with(header("ce-id", strings.Repeat("x", 129))), check: placed},
		"id like a derived one":      {message: with(header("ce-id", "at-0000")), check: placed},
		"other form of id": {
			message: with(header("ce-id", "order:17")),
			check:   func(e journal.Event) bool { return e.ID == "order:17" },
		},

		"no time": {
			message: with(header("ce-time")),
			check:   func(e journal.Event) bool { return e.Time.Equal(stored) },
		},
		"empty time": {
			message: with(header("ce-time", "")),
			check:   func(e journal.Event) bool { return e.Time.Equal(stored) },
		},
		"invalid time": {
			message: with(header("ce-time", "yesterday")),
			check:   func(e journal.Event) bool { return e.Time.Equal(stored) },
		},
		"two times": {
			message: with(header("ce-time", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z")),
			check:   func(e journal.Event) bool { return e.Time.Equal(stored) },
		},

		"no tenant": {
			message: with(header("tenant-id")),
			check:   func(e journal.Event) bool { return e.Context.TenantID.String() == "acme" && !e.Context.Platform },
		},
		"empty tenant": {
			message: with(header("tenant-id", "")),
			check:   func(e journal.Event) bool { return e.Context.TenantID.String() == "acme" },
		},
		"other tenant":     {message: with(header("tenant-id", "globex")), fault: journal.FaultTenant},
		"invalid tenant":   {message: with(header("tenant-id", "AC ME")), fault: journal.FaultTenant},
		"duplicate tenant": {message: with(header("tenant-id", "acme", "acme")), fault: journal.FaultTenant},
		"subject without a tenant": {
			message: with(func(m *journal.Message) { m.Subject = "events.ACME.wallet.w" }),
			fault:   journal.FaultSubject,
		},
		"short subject": {
			message: with(func(m *journal.Message) { m.Subject = "events.acme" }),
			fault:   journal.FaultSubject,
		},
		"no aggregate id": {
			message: with(func(m *journal.Message) { m.Subject = "events.acme.wallet" }),
			fault:   journal.FaultSubject,
		},
		"long subject": {
			message: with(func(m *journal.Message) { m.Subject = "events.acme.wallet.w.x" }),
			fault:   journal.FaultSubject,
		},
		"invalid aggregate id": {
			message: with(func(m *journal.Message) { m.Subject = "events.acme.wallet.w=3" }),
			fault:   journal.FaultSubject,
		},
		"invalid aggregate type": {
			message: with(func(m *journal.Message) { m.Subject = "events.acme.Wallet.w" }),
			fault:   journal.FaultSubject,
		},
		"no aggregate": {
			message: with(func(m *journal.Message) { header("ce-aggregateid")(m); header("ce-aggregatetype")(m) }),
			check:   func(e journal.Event) bool { return e.AggregateType == "wallet" && e.AggregateID == "w" },
		},
		"empty aggregate": {
			message: with(header("ce-aggregateid", "")),
			check:   func(e journal.Event) bool { return e.AggregateID == "w" },
		},
		"equal duplicate id": {
			message: with(header("ce-aggregateid", "w", "w")),
			check:   func(e journal.Event) bool { return e.AggregateID == "w" },
		},
		"other aggregate id": {message: with(header("ce-aggregateid", "v")), fault: journal.FaultAggregate},
		"other type":         {message: with(header("ce-aggregatetype", "w", "wallet")), fault: journal.FaultAggregate},
		"no type":            {message: with(header("ce-type")), fault: journal.FaultHeader},
		"empty type":         {message: with(header("ce-type", "")), fault: journal.FaultHeader},
		"two types":          {message: with(header("ce-type", "deposited", "withdrawn")), fault: journal.FaultHeader},
		"unknown type": {
			message: with(header("ce-type", "com.example/Deposited 2")),
			check:   func(e journal.Event) bool { return e.Type == "com.example/Deposited 2" },
		},
		"no version": {message: with(header("ce-aggregateversion")), fault: journal.FaultHeader},
		"version 0":  {message: with(header("ce-aggregateversion", "0")), fault: journal.FaultHeader},
		"version x":  {message: with(header("ce-aggregateversion", "x")), fault: journal.FaultHeader},
		"version over 64 bits": {
			message: with(header("ce-aggregateversion", "9223372036854775808")),
			fault:   journal.FaultHeader,
		},
		"two versions": {message: with(header("ce-aggregateversion", "3", "4")), fault: journal.FaultHeader},
		"no data version": {
			message: with(header("ce-dataversion")),
			check:   func(e journal.Event) bool { return e.DataVersion == 1 },
		},
		"data version -1": {message: with(header("ce-dataversion", "-1")), fault: journal.FaultHeader},
		"no correlation": {
			message: with(func(m *journal.Message) { header("x-correlation-id")(m); header("correlation-id")(m) }),
			check:   func(e journal.Event) bool { return e.Context.CorrelationID == e.ID },
		},
		"no trace": {
			message: with(header("traceparent")),
			check:   func(e journal.Event) bool { return !e.Context.Traceparent.IsZero() },
		},
		"invalid trace": {
			message: with(header("traceparent", "x")),
			check:   func(e journal.Event) bool { return !e.Context.Traceparent.IsZero() },
		},
		"no headers": {message: with(func(m *journal.Message) { m.Header = nil }), fault: journal.FaultHeader},
		"other specs": {
			message: with(
				func(m *journal.Message) { header("ce-specversion", "9")(m); header("content-type", "text/plain")(m) },
			),
			check: func(e journal.Event) bool { return e.Version == 3 },
		},
		"no data": {
			message: with(data("")),
			check:   func(e journal.Event) bool { return string(e.Data) == "{}" },
		},
		"object": {
			message: with(data(" {\"a\":[1e400]}\n")),
			check:   func(e journal.Event) bool { return e.Version == 3 },
		},
		"null":             {message: with(data("null")), fault: journal.FaultData},
		"scalar":           {message: with(data("17")), fault: journal.FaultData},
		"array":            {message: with(data("[{}]")), fault: journal.FaultData},
		"string":           {message: with(data("hello")), fault: journal.FaultData},
		"truncated object": {message: with(data(`{"a":1`)), fault: journal.FaultData},
		"two objects":      {message: with(data(`{"a":1}{"b":2}`)), fault: journal.FaultData},
		"trailing data":    {message: with(data(`{"a":1} x`)), fault: journal.FaultData},
		"spaces":           {message: with(data("  ")), fault: journal.FaultData},
		"bytes":            {message: with(data("\x00\xff")), fault: journal.FaultData},
		"deep object": {
			message: with(data(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000))),
			fault:   journal.FaultData,
		},
		"huge": {
			message: with(data(`{"a":"` + strings.Repeat("x", streams.MaxMessageBytes) + `"}`)),
			fault:   journal.FaultSize,
		},
	} {
		t.Run(name, func(t *testing.T) {
			event, err := journal.ReadEvent(row.message)
			e, unreadable := errors.AsType[*journal.UnreadableError](err)
			switch {
			case row.fault == "" && (err != nil || !row.check(event)):
				t.Errorf("%+v, %v", event, err)
			case row.fault != "" &&
				(!unreadable || e.Fault != row.fault || e.Sequence != 7 || !errors.Is(err, journal.ErrMalformedEvent)):
				t.Errorf("%+v, %v; want fault %s", event, err, row.fault)
			case err != nil && len(err.Error()) > 1000:
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestReadEvent_PlacesMakeDifferentIDs checks that ids that are made from places differ from
// those of other places, and of clients.
func TestReadEvent_PlacesMakeDifferentIDs(t *testing.T) {
	seen := map[string]bool{}
	for sequence := range uint64(100) {
		m := with(header("ce-id"))
		m.Sequence = sequence
		event, err := journal.ReadEvent(m)
		if err != nil || seen[event.ID] || event.UniqueID() != event.ID {
			t.Fatalf("%s at sequence %d, %v", event.ID, sequence, err)
		}
		seen[event.ID] = true
		m.Header["ce-id"] = []string{event.ID}
		m.Sequence = 1000
		if again, err := journal.ReadEvent(m); err != nil || seen[again.ID] {
			t.Fatalf("id of a client is parsed as a derived id: %s, %v", again.ID, err)
		}
	}
}

// TestUniqueID_OfOtherProducersDependsOnTheEvent has one id in several events.
func TestUniqueID_OfOtherProducersDependsOnTheEvent(t *testing.T) {
	seen := map[string]bool{}
	for _, event := range []journal.Event{
		{ID: "1", AggregateType: "wallet", AggregateID: "w", Version: 1},
		{ID: "1", AggregateType: "wallet", AggregateID: "w", Version: 2},
		{ID: "1", AggregateType: "wallet", AggregateID: "v", Version: 1},
		{ID: "1", AggregateType: "transfer", AggregateID: "w", Version: 1},
		{ID: "2", AggregateType: "wallet", AggregateID: "w", Version: 1},
		{ID: "0190B3A1-0000-7000-8000-00000000000G", AggregateType: "wallet", AggregateID: "w", Version: 1},
		{ID: contextkit.NewID(), AggregateType: "wallet", AggregateID: "w", Version: 1},
	} {
		if id := event.UniqueID(); seen[id] || id == "1" || contextkit.IsNewID(event.ID) && id != event.ID {
			t.Errorf("%+v: %s", event, id)
		} else {
			seen[id] = true
		}
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add("events.acme.wallet.w", "3", "2026-01-02T03:04:05Z", "acme", "deposited", "id", "{}")
	f.Add("events.>", "-1", "yesterday", "*", "", "at-x", "null")
	f.Fuzz(func(t *testing.T, subject, version, at, tenant, eventType, id, data string) {
		event, err := journal.ReadEvent(
			journal.Message{
				Subject:  subject,
				Sequence: 9,
				Time:     time.Unix(1, 0),
				Data:     []byte(data),
				Header: nats.Header{
					"ce-aggregateversion": {
						version,
					},
					"ce-time":   {at},
					"tenant-id": {tenant},
					"ce-type":   {eventType},
					"ce-id":     {id},
					"ce-future": {"ignored"},
				},
			},
		)
		if err != nil {
			if _, ok := errors.AsType[*journal.UnreadableError](err); !ok {
				t.Fatalf("err = %v, want an UnreadableError", err)
			}
			return
		}
		rc := event.Context
		var object map[string]json.RawMessage
		if event.Version < 1 || event.Type == "" || !contextkit.ValidID(event.ID) || event.Time.IsZero() && at == "" ||
			subject != streams.EventSubject(
				rc.TenantID,
				event.AggregateType,
				event.AggregateID,
			) || tenant != "" && tenant != rc.TenantID.String() ||
			json.Unmarshal(event.Data, &object) != nil || object == nil {
			t.Fatalf("%+v is valid, want an error", event)
		}
	})
}

func TestChain_CountsWhatWasPassedOver(t *testing.T) {
	chain := journal.Chain{}
	for step, row := range []struct {
		passed, version int64 // one of them
		continues       bool
	}{
		{version: 1, continues: true}, {version: 3}, {version: 2, continues: true}, {version: 2},
		{passed: 3}, {passed: 0}, {passed: 900}, {version: 5}, {version: 901}, {passed: 4},
		{version: 5, continues: true},
		{passed: 6}, {version: 6, continues: true}, {passed: 0}, {version: 8}, {version: 7, continues: true},
	} {
		if row.version == 0 {
			chain.Pass(row.passed)
			continue
		}
		if got := chain.Continues(row.version); got != row.continues {
			t.Errorf("step %d: version %d continues %+v: %v", step, row.version, chain, got)
		}
		if row.continues {
			chain.Next(row.version)
		}
	}
}
