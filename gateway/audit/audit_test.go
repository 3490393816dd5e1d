package audit_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func TestMain(m *testing.M) { backbonetest.Main(m) }

func TestACallersDenialsAreKeptUpToARate(t *testing.T) {
	js := backbonetest.Start(t)
	recorder := audit.NewRecorder(js, prometheus.NewRegistry(), zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := recorder.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	consumer, err := js.OrderedConsumer(t.Context(), backbone.StreamAudit, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() (record audit.Record) {
		t.Helper()
		msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(msg.Data(), &record); err != nil {
			t.Fatal(err)
		}
		return record
	}
	rc := contextkit.RequestContext{Traceparent: contextkit.NewTraceparent(), CorrelationID: "c", RequestID: "r"}
	deny := func(principal, reason string) {
		recorder.Deny(rc, audit.Record{Decision: "denied", Principal: principal, Reason: reason})
	}
	const storm = 1000
	began := time.Now()
	for range storm {
		deny("", "CREDENTIAL")
	}
	most := 200 + 10*int(time.Since(began).Seconds()+1)
	deny("app", "RIGHT") // another caller is not drowned
	recorder.Record(rc, audit.Record{Decision: "allowed", Principal: "operator"})
	kept, told := 0, int64(0)
	for record := next(); record.Principal == ""; record = next() {
		kept, told = kept+1, told+record.Suppressed
		if kept > most {
			t.Fatalf("more than %d of %d are kept", most, storm)
		}
	}
	if record := next(); record.Decision != "allowed" {
		t.Errorf("after the other caller's denial comes %+v", record)
	}
	if kept < 200 {
		t.Errorf("%d denials at once are kept, want 200", kept)
	}
	// What was not kept is told with the next that is.
	for deadline := time.Now().Add(20 * time.Second); ; {
		deny("", "CREDENTIAL")
		if info, err := js.Stream(t.Context(), backbone.StreamAudit); err != nil {
			t.Fatal(err)
		} else if info.CachedInfo().State.Msgs > uint64(kept)+2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no further denial is kept")
		}
	}
	if record := next(); record.Suppressed+told < int64(storm-kept) {
		t.Errorf("%d denials are told to have been left out, want %d at least", record.Suppressed+told, storm-kept)
	}
}
