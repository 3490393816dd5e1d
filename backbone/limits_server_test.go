package backbone_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

func TestCheckLimits_OfARealServer(t *testing.T) {
	s := natstest.Server(t, &server.Options{MaxPayload: 512 << 10})
	conn, err := backbone.Connect(s.ClientURL(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if warnings, err := backbone.CheckLimits(t.Context(), js, 1); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "max_payload is 524288 bytes") {
		t.Errorf("%q, %v", warnings, err)
	}
	account := s.GlobalAccount()
	if err := account.UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": {MaxMemory: -1, MaxStore: -1, MaxStreams: 5, MaxConsumers: -1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := backbone.CheckLimits(t.Context(), js, 1); err == nil || !strings.Contains(err.Error(), "may have 5 streams and has 0") || backbone.Away(err) {
		t.Errorf("%v", err)
	}
}

// A stream of the embedded server may have as many consumers as there is room for.
func TestEmbedded_BoundsNoConsumers(t *testing.T) {
	js := natstest.Start(t)
	stream, err := js.Stream(t.Context(), backbone.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for range server.JSDefaultMaxConsumersPerStream + 1 {
		if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{MemoryStorage: true, AckPolicy: jetstream.AckNonePolicy}); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := backbone.CheckLimits(t.Context(), js, 1); err != nil || len(warnings) > 0 {
		t.Errorf("%q, %v", warnings, err)
	}
}
