package journal

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Place is a message of the journal, by which what was made from the journal is compared with it.
type Place struct {
	// Sequence is 0 if there is no message.
	Sequence uint64
	// Tenant is the tenant that the message's subject names, the zero value if it names none.
	Tenant contextkit.TenantID
	// EventID is the event's id as [ReadEvent] returns it; "" if the message is no event.
	EventID string
	// MessageID is the message's, see [MessageID].
	MessageID string
}

// MessageID returns an id of the message with a header at a sequence, whether it is an event or not.
// Another message at the same sequence, as after a restore, has another id, unless neither has a
// ce-id.
func MessageID(header nats.Header, sequence uint64) string { return messageID(header, sequence) }

// LastPlace returns the place of the tenant's last message, by the stream's leader.
func (j *Journal) LastPlace(ctx context.Context, tenant contextkit.TenantID) (Place, error) {
	return placeOf(
		natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{Last: streams.TenantEvents(tenant)}),
	)
}

// PlaceAt returns the place at a sequence, of whichever tenant, by the stream's leader.
func (j *Journal) PlaceAt(ctx context.Context, sequence uint64) (Place, error) {
	return placeOf(natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{From: sequence}))
}

func placeOf(msg *jetstream.RawStreamMsg, err error) (Place, error) {
	if msg == nil || err != nil {
		return Place{}, err
	}
	m := RawMessage(msg)
	tenant, _, _ := m.Names()
	p := Place{Sequence: m.Sequence, Tenant: tenant, MessageID: messageID(m.Header, m.Sequence)}
	if event, err := ReadEvent(m); err == nil {
		p.EventID = event.ID
	}
	return p, nil
}
