package natsserver_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// A stream of the embedded server may have as many consumers as there is room for.
func TestEmbedded_BoundsNoConsumers(t *testing.T) {
	js := natstest.Start(t)
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	for range server.JSDefaultMaxConsumersPerStream + 1 {
		if _, err := stream.CreateConsumer(
			t.Context(), jetstream.ConsumerConfig{MemoryStorage: true, AckPolicy: jetstream.AckNonePolicy},
		); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := setup.CheckLimits(t.Context(), js, 1); err != nil || len(warnings) > 0 {
		t.Errorf("%q, %v", warnings, err)
	}
}
