package events

import (
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/journal"
)

const (
	// maxHeaders and maxHeader bound the headers of an event in a response, in number and in encoded bytes.
	maxHeaders, maxHeader = 64, 1 << 10
	// ownHeaders begins the headers of JetStream, some of which have sequences of all tenants.
	ownHeaders = "Nats-"
)

// message returns a message of the tenant's journal as clients see it.
func (s *Service) message(tenant contextkit.TenantID, m journal.Message) *aggregatev1.JournalEvent {
	event, err := journal.ReadEvent(m)
	if fault, ok := errors.AsType[*journal.UnreadableError](err); ok {
		return &aggregatev1.JournalEvent{
			AggregateType: excerpt.Text(valid(fault.AggregateType), excerpt.Name),
			AggregateId:   excerpt.Text(valid(fault.AggregateID), excerpt.Name),
			Version:       fault.Version,
			Time:          timestamppb.New(fault.Stored),
			Position:      s.Positions.Format(tenant, m.Sequence),
			Unreadable:    &aggregatev1.UnreadableEvent{Fault: string(fault.Fault), Bytes: int64(len(m.Data))},
		}
	}
	out := &aggregatev1.JournalEvent{
		Id:             event.ID,
		Type:           valid(event.Type),
		AggregateType:  event.AggregateType,
		AggregateId:    event.AggregateID,
		Version:        event.Version,
		Time:           timestamppb.New(event.Time),
		Position:       s.Positions.Format(tenant, m.Sequence),
		DataVersion:    int32(min(event.DataVersion, maxDataVersion)),
		Principal:      excerpt.Text(valid(event.Principal), maxHeader),
		CorrelationId:  event.Context.CorrelationID,
		CausationId:    event.Context.CausationID,
		ModelRevision:  valid(event.Model.Revision),
		IdempotencyKey: excerpt.Text(valid(event.Command.IdempotencyKey), maxHeader),
		Headers:        headers(m.Header),
	}
	// An event of another producer may lack these, and reading it makes new ones.
	if event.Context.RequestID == m.Header.Get(contextkit.NATSRequestID) {
		out.RequestId = event.Context.RequestID
	}
	if trace := event.Context.TraceIDText(); strings.Contains(m.Header.Get(contextkit.NATSTraceparent), trace) {
		out.TraceId = trace
	}
	var exact bool
	if out.Data, exact = structOf(event.Data); !exact {
		out.Data, out.RawData = nil, event.Data
	}
	return out
}

// maxDataVersion is the largest version of the form of data that the API has.
const maxDataVersion = 1<<31 - 1

// headers returns the headers of a message but JetStream's own.
func headers(all nats.Header) map[string]string {
	names := make([]string, 0, len(all))
	for name := range all {
		if !strings.HasPrefix(name, ownHeaders) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make(map[string]string, len(names))
	for _, name := range names[:min(len(names), maxHeaders)] {
		out[excerpt.Text(valid(name), excerpt.Name)] = excerpt.Text(valid(strings.Join(all[name], ", ")), maxHeader)
	}
	return out
}

// valid returns text as UTF-8, which strings of protobuf are.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
