package timeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
)

// openTimeline returns a timeline of one process.
func openTimeline(t *testing.T, js jetstream.JetStream) *timeline.Recorder {
	t.Helper()
	timeline, err := timeline.New(js)
	if err != nil {
		t.Fatal(err)
	}
	return timeline
}

// flush publishes what the timelines have recorded.
func flush(t *testing.T, timelines ...*timeline.Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, timeline := range timelines {
		if err := timeline.Run(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
	}
}

// callOf is a call for a tenant under a correlation id.
func callOf(t *testing.T, tenant, correlation string) context.Context {
	t.Helper()
	rc := contextkit.RequestContext{TenantID: natstest.Tenant(t, tenant), CorrelationID: correlation}
	return contextkit.TenantContext(contextkit.NewContext(t.Context(), rc), rc.TenantID)
}

func spansOf(t *testing.T, js jetstream.JetStream, tenant, id string) []timeline.Span {
	t.Helper()
	spans, _, err := timeline.Read(t.Context(), js, natstest.Tenant(t, tenant), id)
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

// However much a tenant's calls record, in however many processes, the other tenants' spans
// are recorded and stay.
func TestTimeline_TenantDisplacesOnlyItsOwnSpans(t *testing.T) {
	js := natstest.Start(t)
	timelines := []*timeline.Recorder{openTimeline(t, js), openTimeline(t, js)}
	quiet := func(id string) {
		for _, recorder := range timelines {
			recorder.Record(callOf(t, "quiet", id), timeline.Span{
				Kind:    timeline.KindCall,
				Name:    "/a/B",
				Started: time.Now(),
				Code:    "ok",
			})
		}
	}
	quiet("before")
	flush(t, timelines...)
	huge := strings.Repeat("\x01", 95<<10)
	flood := func() {
		var all sync.WaitGroup
		for _, recorder := range timelines {
			all.Go(func() {
				for i := range 5000 {
					recorder.Record(callOf(t, "flood", fmt.Sprint("f", i)), timeline.Span{
						Kind:    timeline.KindCall,
						Name:    huge,
						Code:    huge,
						Detail:  huge,
						Subject: huge,
						Event:   huge,
					})
				}
			})
		}
		all.Wait()
	}
	flood()
	quiet("amid") // the queues are full
	flush(t, timelines...)
	for _, id := range []string{"before", "amid"} {
		if spans := spansOf(t, js, "quiet", id); len(spans) != 2 {
			t.Errorf("%s the flood %d spans are stored, want 2", id, len(spans))
		}
	}
	if lost := testutil.ToFloat64(timelines[0]); lost < 2000 {
		t.Errorf("%v spans of the flood are lost, want what the queue does not hold", lost)
	}
	// The stream bounds the number and size of messages per subject, however much a tenant
	// sends.
	for range 3 {
		for range 500 {
			for _, recorder := range timelines {
				recorder.Record(callOf(t, "flood", "one"), timeline.Span{Kind: timeline.KindCall, Detail: huge})
			}
		}
		flush(t, timelines...)
	}
	stream, err := js.Stream(t.Context(), streams.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("timeline.>"))
	if err != nil {
		t.Fatal(err)
	}
	largest, floods := uint64(0), 0
	for subject, messages := range info.State.Subjects {
		largest = max(largest, messages)
		if strings.HasPrefix(subject, "timeline.flood.") {
			floods++
		}
	}
	if limit := uint64(info.Config.MaxMsgsPerSubject); largest != limit || floods > 64 || info.Config.MaxBytes > 0 ||
		info.Config.MaxMsgSize <= 0 {
		t.Errorf("%d spans on one of %d subjects; %+v", largest, floods, info.Config)
	}
	if spans := spansOf(t, js, "quiet", "before"); len(spans) != 2 {
		t.Errorf("%d earlier spans are left of 2", len(spans))
	}
}

// A process of an earlier version that starts takes the stream's new subjects: spans that are
// not stored until then are counted, and the stream has its subjects again.
func TestTimeline_RestoresItsStream(t *testing.T) {
	js := natstest.Start(t)
	follow, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED." + streams.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	updated := func(what string) {
		t.Helper()
		if _, err := follow.NextMsg(20 * time.Second); err != nil {
			t.Fatalf("%s: no advisory arrives: %v", what, err)
		}
	}
	natstest.Narrow(t, js, streams.Timeline, "timeline.*.*.*.*")
	updated("the stream is narrowed")
	recorder := openTimeline(t, js)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := recorder.Run(ctx, "n1"); err != nil {
			t.Error(err)
		}
	})
	recorder.Record(callOf(t, "acme", "first"), timeline.Span{Kind: timeline.KindCall})
	updated("the stream is restored")
	if lost := testutil.ToFloat64(recorder); lost != 1 {
		t.Errorf("%v spans are counted as lost, want 1", lost)
	}
	recorder.Record(callOf(t, "acme", "second"), timeline.Span{Kind: timeline.KindCall})
	cancel()
	running.Wait()
	if spans := spansOf(t, js, "acme", "second"); len(spans) != 1 {
		t.Errorf("%+v, want the span", spans)
	}
}

func TestTimeline_CallersWithoutACredentialHaveASeparateAccount(t *testing.T) {
	js := natstest.Start(t)
	recorder := openTimeline(t, js)
	rc := contextkit.In(callOf(t, "acme", "denied"))
	recorder.RecordFor(rc, streams.AccountUnauthenticated,
		timeline.Span{Kind: timeline.KindCall, Name: "/a/B", Code: "unauthenticated"})
	flush(t, recorder)
	for _, id := range []string{"denied", rc.RequestID, rc.TraceID.String()} {
		if spans := spansOf(t, js, "acme", id); len(spans) != 1 || spans[0].Code != "unauthenticated" {
			t.Errorf("%s: %+v", id, spans)
		}
		if spans := spansOf(t, js, "globex", id); len(spans) != 0 {
			t.Errorf("another tenant finds %+v", spans)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.GetLastMsgForSubject(t.Context(), "timeline._unauthenticated.*"); err != nil {
		t.Errorf("it does not count against the callers without a credential: %v", err)
	}
}

// Read of versions that had a subject per call are read beside the others.
func TestTimeline_ReadsSpansOfEarlierVersions(t *testing.T) {
	js := natstest.Start(t)
	recorder := openTimeline(t, js)
	call := callOf(t, "acme", "both")
	rc := contextkit.In(call)
	began := time.Now()
	recorder.Record(call, timeline.Span{Kind: timeline.KindEvent, Name: "opened", Started: began.Add(time.Second)})
	flush(t, recorder)
	earlier := timeline.Span{
		Kind:          timeline.KindCall,
		Name:          "/a/B",
		Started:       began,
		CorrelationID: "both",
		TraceID:       contextkit.NewTraceparent().TraceID.String(),
		RequestID:     "r1",
	}
	data, err := json.Marshal(earlier)
	if err != nil {
		t.Fatal(err)
	}
	msg := &nats.Msg{
		Subject: "timeline.acme.both." + earlier.TraceID + ".r1",
		Header:  nats.Header{contextkit.NATSTenantID: {"acme"}},
		Data:    data,
	}
	if _, err := js.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"both", earlier.TraceID, "r1", rc.TraceID.String(), rc.RequestID} {
		if spans := spansOf(t, js, "acme", id); len(spans) != 2 || spans[0].Kind != timeline.KindCall ||
			spans[1].Kind != timeline.KindEvent {
			t.Errorf("%s: %+v, want the earlier version's and then this one's", id, spans)
		}
	}
	if spans := spansOf(t, js, "acme", "*"); len(spans) != 0 {
		t.Errorf("a wildcard finds %+v", spans)
	}
}
