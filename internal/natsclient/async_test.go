package natsclient_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestAsync_UnacknowledgedPublishReleasesItsPlace(t *testing.T) {
	t.Parallel()
	_, js := natstest.OpenJournal(t)
	natstest.Swallow(t, js, streams.Timeline, "timeline.>")
	async, err := natsclient.Async(js, 1, nil)
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
		t.Error("the message is acknowledged")
	}
	if n := async.PublishAsyncPending(); n != 0 {
		t.Errorf("%d are still on their way", n)
	}
}
