package timeline_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
)

func TestRecorder_EndsWithoutAcknowledgements(t *testing.T) {
	t.Parallel()
	_, js := natstest.OpenJournal(t)
	natstest.Swallow(t, js, streams.Timeline, "timeline.>")
	recorder, err := timeline.New(js)
	if err != nil {
		t.Fatal(err)
	}
	call := contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme"))
	for range 900 { // more than may be on their way
		recorder.Record(call, timeline.Span{Kind: timeline.KindCall, Name: "x", Started: time.Now()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- recorder.Run(ctx, "n1") }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for each that finds no place")
	}
	if lost := testutil.ToFloat64(recorder); lost != 900-512 {
		t.Errorf("%v spans are counted as lost, want the ones beyond the queue", lost)
	}
}
