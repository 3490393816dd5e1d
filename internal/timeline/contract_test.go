package timeline_test

import (
	"context"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
)

func TestSpan_CarriesTheContractOfItsCall(t *testing.T) {
	js := natstest.Start(t)
	recorder, err := timeline.New(js)
	if err != nil {
		t.Fatal(err)
	}
	call := contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme"))
	recorder.Record(t.Context(), timeline.Span{Kind: timeline.KindCall}) // of no call: nothing is recorded
	recorder.Record(call, timeline.Span{Kind: timeline.KindCall, Name: "x", Started: time.Now()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it publishes what was recorded before it ends
	if err := recorder.Run(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	natstest.SameContract(call, t, js, streams.Timeline, 1)
}
