package backbone_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// openTimeline returns a timeline of one process.
func openTimeline(t *testing.T, js jetstream.JetStream) *backbone.Timeline {
	t.Helper()
	timeline, err := backbone.NewTimeline(js)
	if err != nil {
		t.Fatal(err)
	}
	return timeline
}

// flush publishes what the timelines have recorded.
func flush(t *testing.T, timelines ...*backbone.Timeline) {
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

func hopsOf(t *testing.T, js jetstream.JetStream, tenant, id string) []backbone.Hop {
	t.Helper()
	hops, _, err := backbone.Hops(t.Context(), js, natstest.Tenant(t, tenant), id)
	if err != nil {
		t.Fatal(err)
	}
	return hops
}

// However much a tenant's calls record, in however many processes, the other tenants' hops
// are recorded and stay.
func TestTimeline_ATenantDisplacesItsOwnHopsAlone(t *testing.T) {
	js := natstest.Start(t)
	timelines := []*backbone.Timeline{openTimeline(t, js), openTimeline(t, js)}
	quiet := func(id string) {
		for _, timeline := range timelines {
			timeline.Record(callOf(t, "quiet", id), backbone.Hop{Kind: backbone.HopCall, Name: "/a/B", Started: time.Now(), Code: "ok"})
		}
	}
	quiet("before")
	flush(t, timelines...)
	huge := strings.Repeat("\x01", 95<<10)
	flood := func() {
		var all sync.WaitGroup
		for _, timeline := range timelines {
			all.Go(func() {
				for i := range 5000 {
					timeline.Record(callOf(t, "flood", fmt.Sprint("f", i)), backbone.Hop{Kind: backbone.HopCall, Name: huge, Code: huge, Detail: huge, Subject: huge, Event: huge})
				}
			})
		}
		all.Wait()
	}
	flood()
	quiet("amid") // the queues are full
	flush(t, timelines...)
	for _, id := range []string{"before", "amid"} {
		if hops := hopsOf(t, js, "quiet", id); len(hops) != 2 {
			t.Errorf("%s the flood %d hops are stored, want 2", id, len(hops))
		}
	}
	if lost := testutil.ToFloat64(timelines[0]); lost < 2000 {
		t.Errorf("%v hops of the flood are lost, want what the queue does not hold", lost)
	}
	// The stream bounds the number and size of messages per subject, however much a tenant
	// sends.
	for range 3 {
		for range 500 {
			for _, timeline := range timelines {
				timeline.Record(callOf(t, "flood", "one"), backbone.Hop{Kind: backbone.HopCall, Detail: huge})
			}
		}
		flush(t, timelines...)
	}
	stream, err := js.Stream(t.Context(), backbone.StreamTimeline)
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
	if limit := uint64(info.Config.MaxMsgsPerSubject); largest != limit || floods > 64 || info.Config.MaxBytes > 0 || info.Config.MaxMsgSize <= 0 { //nolint:gosec // it is positive
		t.Errorf("%d hops on one of %d subjects; %+v", largest, floods, info.Config)
	}
	if hops := hopsOf(t, js, "quiet", "before"); len(hops) != 2 {
		t.Errorf("%d earlier hops are left of 2", len(hops))
	}
}

// A process of an earlier version that starts takes the stream's new subjects: the hops that
// are not stored meanwhile are counted, and the stream has its subjects again.
func TestTimeline_RestoresItsStream(t *testing.T) {
	js := natstest.Start(t)
	follow, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED." + backbone.StreamTimeline)
	if err != nil {
		t.Fatal(err)
	}
	updated := func(what string) {
		t.Helper()
		if _, err := follow.NextMsg(20 * time.Second); err != nil {
			t.Fatalf("%s: no advisory arrives: %v", what, err)
		}
	}
	narrow(t, js, backbone.StreamTimeline, "timeline.*.*.*.*")
	updated("the stream is narrowed")
	timeline := openTimeline(t, js)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := timeline.Run(ctx, "n1"); err != nil {
			t.Error(err)
		}
	})
	timeline.Record(callOf(t, "acme", "first"), backbone.Hop{Kind: backbone.HopCall})
	updated("the stream is restored")
	if lost := testutil.ToFloat64(timeline); lost != 1 {
		t.Errorf("%v hops are counted as lost, want 1", lost)
	}
	timeline.Record(callOf(t, "acme", "second"), backbone.Hop{Kind: backbone.HopCall})
	cancel()
	running.Wait()
	if hops := hopsOf(t, js, "acme", "second"); len(hops) != 1 {
		t.Errorf("%+v, want the hop", hops)
	}
}

func TestHops_CallersWithoutACredentialHaveAnAccountOfTheirOwn(t *testing.T) {
	js := natstest.Start(t)
	timeline := openTimeline(t, js)
	rc := contextkit.In(callOf(t, "acme", "denied"))
	timeline.RecordFor(rc, backbone.AccountUnauthenticated, backbone.Hop{Kind: backbone.HopCall, Name: "/a/B", Code: "unauthenticated"})
	flush(t, timeline)
	for _, id := range []string{"denied", rc.RequestID, rc.TraceID.String()} {
		if hops := hopsOf(t, js, "acme", id); len(hops) != 1 || hops[0].Code != "unauthenticated" {
			t.Errorf("%s: %+v", id, hops)
		}
		if hops := hopsOf(t, js, "globex", id); len(hops) != 0 {
			t.Errorf("another tenant finds %+v", hops)
		}
	}
	stream, err := js.Stream(t.Context(), backbone.StreamTimeline)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.GetLastMsgForSubject(t.Context(), "timeline._unauthenticated.*"); err != nil {
		t.Errorf("it does not count against the callers without a credential: %v", err)
	}
}

// Hops of versions that had a subject per call are read beside the others.
func TestHops_ReadsThoseOfEarlierVersions(t *testing.T) {
	js := natstest.Start(t)
	timeline := openTimeline(t, js)
	call := callOf(t, "acme", "both")
	rc := contextkit.In(call)
	began := time.Now()
	timeline.Record(call, backbone.Hop{Kind: backbone.HopEvent, Name: "opened", Started: began.Add(time.Second)})
	flush(t, timeline)
	earlier := backbone.Hop{Kind: backbone.HopCall, Name: "/a/B", Started: began, CorrelationID: "both", TraceID: contextkit.NewTraceparent().TraceID.String(), RequestID: "r1"}
	data, err := json.Marshal(earlier)
	if err != nil {
		t.Fatal(err)
	}
	msg := &nats.Msg{Subject: "timeline.acme.both." + earlier.TraceID + ".r1", Header: nats.Header{contextkit.NATSTenantID: {"acme"}}, Data: data}
	if _, err := js.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"both", earlier.TraceID, "r1", rc.TraceID.String(), rc.RequestID} {
		if hops := hopsOf(t, js, "acme", id); len(hops) != 2 || hops[0].Kind != backbone.HopCall || hops[1].Kind != backbone.HopEvent {
			t.Errorf("%s: %+v, want the earlier version's and then this one's", id, hops)
		}
	}
	if hops := hopsOf(t, js, "acme", "*"); len(hops) != 0 {
		t.Errorf("a wildcard finds %+v", hops)
	}
}
