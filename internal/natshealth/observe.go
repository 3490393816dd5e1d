package natshealth

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/streams"
)

// observed is a JetStream whose publishes a Storage observes.
type observed struct {
	jetstream.JetStream

	storage *Storage
}

// Observe returns a JetStream that reports the outcomes of its publishes to the Storage. A [journal.Journal] over it
// refuses events while EVENTS does not store them. It must be called once. Its goroutine ends when the connection is
// closed.
func (s *Storage) Observe(js jetstream.JetStream) jetstream.JetStream {
	former := js.Conn().ErrorHandler()
	js.Conn().SetErrorHandler(func(conn *nats.Conn, sub *nats.Subscription, err error) {
		s.deny(err)
		if former != nil {
			former(conn, sub, err)
		}
	})
	changes := js.Conn().StatusChanged(nats.CONNECTED, nats.CLOSED)
	go func() {
		for {
			select {
			case stream := <-s.suspects:
				s.examine(js.Conn(), stream)
			case status, open := <-changes:
				switch {
				case !open:
					return
				case status == nats.CLOSED:
					js.Conn().RemoveStatusListener(changes)
				default:
					s.reconnected()
				}
			}
			if js.Conn().IsClosed() {
				return
			}
		}
	}()
	return observed{js, s}
}

// Storage returns the Storage that observes the JetStream.
func (o observed) Storage() *Storage { return o.storage }

// StorageOf returns the Storage that observes js, by its method Storage; nil if it has none.
func StorageOf(js jetstream.JetStream) *Storage {
	if o, ok := js.(interface{ Storage() *Storage }); ok {
		return o.Storage()
	}
	return nil
}

// PublishMsg implements [jetstream.Publisher].
func (o observed) PublishMsg(
	ctx context.Context,
	msg *nats.Msg,
	options ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	began := time.Now()
	ack, err := o.JetStream.PublishMsg(ctx, msg, options...)
	if stream := streamOf(msg.Subject); stream != streams.Events { // the journal reports its publishes itself
		o.storage.Report(stream, began, err)
	}
	return ack, err
}
