package fleet_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestAnnounce_BothKeysCarryTheContract: under the key of today and under that of the previous release,
// an announcement and a deregistration have the platform's scope and a trace.
func TestAnnounce_BothKeysCarryTheContract(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	prefix := "$KV." + streams.BucketNodes + "."
	messages := make(chan *nats.Msg, 64)
	subscription, err := js.Conn().ChanSubscribe(prefix+">", messages)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	done := make(chan error, 1)
	go func() {
		done <- fleet.Announce(ctx, js, fleet.Node{ID: "a", Kind: contextkit.KindRunner, Endpoint: "127.0.0.1:1"},
			func(context.Context, *fleet.Node) error { return nil })
	}()
	for _, deregistered := range []bool{false, true} {
		if deregistered {
			leave()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		missing := map[string]bool{prefix + "a": true, prefix + fleet.NodeKey(contextkit.KindRunner, "a"): true}
		for len(missing) > 0 {
			select {
			case msg := <-messages:
				if (msg.Header.Get("KV-Operation") != "") != deregistered {
					continue
				}
				got, err := contextkit.ExtractNATS(msg.Header)
				if err != nil || got.CorrelationID == "" || got.TraceID == (contextkit.TraceID{}) || !got.Platform {
					t.Errorf("%s, deregistered %v: %+v, %v", msg.Subject, deregistered, got, err)
				}
				delete(missing, msg.Subject)
			case <-t.Context().Done():
				t.Fatalf("deregistered %v: no message under %v", deregistered, missing)
			}
		}
	}
}
