package tail

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/journal"
)

// eventBytes estimates the memory of an event beside its data.
const eventBytes = 2 << 10

// message is a message of the journal.
type message struct {
	subject  string
	header   nats.Header
	data     []byte
	sequence uint64
	time     time.Time
	delivery uint64 // the number of the message within its consumer
	pending  uint64 // messages of the consumer that follow
}

func newMessage(msg jetstream.Msg) (message, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return message{}, fmt.Errorf("not a message of JetStream: %w", err)
	}
	return message{
		subject:  msg.Subject(),
		header:   msg.Headers(),
		data:     msg.Data(),
		sequence: meta.Sequence.Stream,
		time:     meta.Timestamp,
		delivery: meta.Sequence.Consumer,
		pending:  meta.NumPending,
	}, nil
}

// size estimates the memory of the message's event in bytes.
func (m *message) size() int64 { return int64(len(m.data)) + eventBytes }

// event reads the event. An error is a [*journal.UnreadableError].
func (m *message) event() (journal.Event, error) { return journal.ReadEvent(m.stored()) }

// stored returns the stored message.
func (m *message) stored() journal.Message {
	return journal.Message{
		Subject:  m.subject,
		Header:   m.header,
		Data:     m.data,
		Sequence: m.sequence,
		Time:     m.time,
	}
}

// tenant returns the tenant that the subject names (see [streams.EventSubject]), "" if it names
// none.
func (m *message) tenant() string {
	_, rest, _ := strings.Cut(m.subject, ".")
	name, _, _ := strings.Cut(rest, ".")
	return name
}

// aggregateType returns the type of aggregate that the subject names.
func (m *message) aggregateType() string {
	_, rest, _ := strings.Cut(m.subject, ".")
	_, rest, _ = strings.Cut(rest, ".")
	name, _, _ := strings.Cut(rest, ".")
	return name
}
