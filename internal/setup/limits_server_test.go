package setup_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
)

func TestCheckLimits_OfARealServer(t *testing.T) {
	s := natstest.Server(t, &server.Options{MaxPayload: 512 << 10})
	conn, err := natsclient.Connect(s.ClientURL(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if warnings, err := setup.CheckLimits(t.Context(), js, 1); err != nil || len(warnings) != 1 ||
		!strings.Contains(warnings[0], "max_payload is 524288 bytes") {
		t.Errorf("warnings %q, error %v; want one about max_payload", warnings, err)
	}
	account := s.GlobalAccount()
	if err := account.UpdateJetStreamLimits(
		map[string]server.JetStreamAccountLimits{"": {MaxMemory: -1, MaxStore: -1, MaxStreams: 5, MaxConsumers: -1}},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.CheckLimits(t.Context(), js, 1); err == nil ||
		!strings.Contains(err.Error(), "may have 5 streams and has 0") || natsclient.Away(err) {
		t.Errorf("account with 5 streams: %v, want an error about max_streams", err)
	}
}
