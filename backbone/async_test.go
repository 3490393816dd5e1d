package backbone_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// swallow has a subject's messages taken, and never acknowledged, in the place of a stream.
func swallow(t *testing.T, js jetstream.JetStream, stream, subject string) {
	t.Helper()
	if err := js.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Conn().SubscribeSync(subject); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNeverAcknowledgedGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	_, js := openJournal(t)
	swallow(t, js, backbone.StreamTimeline, "timeline.>")
	async, err := backbone.Async(js, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	future, err := async.PublishAsync("timeline.x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := async.PublishAsync("timeline.y", nil); !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
		t.Errorf("a second beside the one that may be on its way: %v", err)
	}
	select {
	case err := <-future.Err():
		if !errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
			t.Error(err)
		}
	case <-future.Ok():
		t.Error("it is acknowledged")
	}
	if n := async.PublishAsyncPending(); n != 0 {
		t.Errorf("%d are still on their way", n)
	}
}

func TestATimelineEndsThoughNobodyAcknowledges(t *testing.T) {
	t.Parallel()
	_, js := openJournal(t)
	swallow(t, js, backbone.StreamTimeline, "timeline.>")
	timeline, err := backbone.NewTimeline(js)
	if err != nil {
		t.Fatal(err)
	}
	call := contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme"))
	for range 900 { // more than may be on their way
		timeline.Record(call, backbone.Hop{Kind: backbone.HopCall, Name: "x", Started: time.Now()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- timeline.Run(ctx, "n1") }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for each that finds no place")
	}
	if lost := testutil.ToFloat64(timeline); lost != 900-512 {
		t.Errorf("%v hops are counted as lost, want those that found no place", lost)
	}
}
