package backbone

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Async returns a JetStream over js's connection for publishes that nobody waits for: most
// of them may be on their way. One that is not acknowledged within seconds is given up, and
// its future fails ([jetstream.ErrAsyncPublishTimeout]): the server that had it may be gone
// while the connection, to another, stays.
func Async(js jetstream.JetStream, most int) (jetstream.JetStream, error) {
	async, err := jetstream.New(js.Conn(), jetstream.WithPublishAsyncMaxPending(most), jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	return async, nil
}
