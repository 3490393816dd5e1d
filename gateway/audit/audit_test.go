package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// recorder is a running recorder.
type recorder struct {
	*audit.Recorder

	metrics *prometheus.Registry
	stop    func()
}

// start starts a recorder, which ends with the test at the latest.
func start(t *testing.T, js jetstream.JetStream) recorder {
	t.Helper()
	metrics := prometheus.NewRegistry()
	r := audit.NewRecorder(js, metrics, zerolog.Nop())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop := func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return recorder{r, metrics, stop}
}

// metric returns the value of the series with the given label values, in the order of the label
// names.
func (r recorder) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			var values []string
			for _, pair := range series.GetLabel() {
				values = append(values, pair.GetValue())
			}
			if family.GetName() == name && strings.Join(values, ",") == strings.Join(labels, ",") {
				return series.GetCounter().GetValue() + series.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no series %s%v", name, labels)
	return 0
}

// call is the context of a platform call.
func call() contextkit.RequestContext {
	return contextkit.RequestContext{Traceparent: contextkit.NewTraceparent(), CorrelationID: "c", RequestID: "r"}
}

func (r recorder) operate(procedure string) {
	r.Record(call(), streams.AccountPlatform, auditlog.ClassOperator,
		audit.Record{Decision: "allowed", Principal: "operator", Procedure: procedure})
}

// reader reads the audit stream from its beginning.
type reader struct {
	t        *testing.T
	consumer jetstream.Consumer
}

func read(t *testing.T, js jetstream.JetStream, subjects ...string) reader {
	t.Helper()
	consumer, err := js.OrderedConsumer(t.Context(), streams.Audit,
		jetstream.OrderedConsumerConfig{FilterSubjects: subjects})
	if err != nil {
		t.Fatal(err)
	}
	return reader{t, consumer}
}

func (r reader) nextMsg() jetstream.Msg {
	r.t.Helper()
	msg, err := r.consumer.Next(jetstream.FetchMaxWait(20 * time.Second))
	if err != nil {
		r.t.Fatal(err)
	}
	return msg
}

func (r reader) next() (record audit.Record) {
	r.t.Helper()
	if err := json.Unmarshal(r.nextMsg().Data(), &record); err != nil {
		r.t.Fatal(err)
	}
	return record
}

func TestRecorder_DenialsOfCallerAreRateLimited(t *testing.T) {
	js := natstest.Start(t)
	r := start(t, js)
	deny := func(principal string) {
		r.Deny(call(), streams.AccountUnauthenticated, audit.Record{Decision: "denied", Principal: principal})
	}
	const storm = 1000
	began := time.Now()
	for range storm {
		deny("")
	}
	most := 200 + 10*int(time.Since(began).Seconds()+1)
	deny("app") // another caller's is recorded
	r.operate("/x.Y/Z")
	denials := read(t, js, auditlog.Subject(streams.AccountUnauthenticated, auditlog.ClassDenied))
	recorded, counted := 0, int64(0)
	for record := denials.next(); record.Principal == ""; record = denials.next() {
		if recorded, counted = recorded+1, counted+record.Suppressed; recorded > most {
			t.Fatalf("more than %d of %d are recorded", most, storm)
		}
	}
	if recorded < 200 {
		t.Errorf("%d denials of a burst are recorded, want 200", recorded)
	}
	if record := read(
		t, js, auditlog.Subject(streams.AccountPlatform, auditlog.ClassOperator),
	).next(); record.Procedure != "/x.Y/Z" {
		t.Errorf("the operator's record is %+v", record)
	}
	// The next record counts the suppressed ones.
	stream, err := js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		deny("")
		if info, err := stream.Info(t.Context()); err != nil {
			t.Fatal(err)
		} else if info.State.Msgs > uint64(recorded)+2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no further denial is recorded")
		}
	}
	if record := denials.next(); record.Suppressed+counted < int64(storm-recorded) {
		t.Errorf("%d denials are counted as suppressed, want %d at least", record.Suppressed+counted, storm-recorded)
	}
}

func TestRecorder_RecordSizeIsBounded(t *testing.T) {
	js := natstest.Start(t)
	r, denials := start(t, js), read(t, js, "audit.*.denied")
	for name, piece := range map[string]string{
		"ascii": "a", "quotes": `"`, "control": "\x01", "runes": "世", "not UTF-8": "\xff",
	} {
		huge := strings.Repeat(piece, 95<<10/len(piece))
		rc := call()
		rc.CorrelationID, rc.RequestID, rc.CausationID = strings.Repeat(
			"i", contextkit.MaxIDLength,
		), strings.Repeat("r", contextkit.MaxIDLength), strings.Repeat("c", contextkit.MaxIDLength)
		rc.TenantID, rc.Tracestate = natstest.Tenant(t, strings.Repeat("t", 63)), strings.Repeat("s", 512)
		r.Deny(rc, streams.AccountOf(rc.TenantID), audit.Record{
			Decision:      "denied",
			Reason:        huge,
			Principal:     huge,
			Tenant:        huge,
			Procedure:     huge,
			Right:         huge,
			Resource:      huge,
			Code:          huge,
			Node:          huge,
			CorrelationID: huge,
			TraceID:       huge,
			RequestID:     huge,
			Request:       slices.Repeat([]auditlog.Field{{Name: huge, Value: &huge, Bytes: len(huge)}}, 50),
			Changes:       slices.Repeat([]auditlog.Change{{Name: huge, Before: huge, After: huge}}, 50),
		})
		msg := denials.nextMsg()
		var record audit.Record
		if err := json.Unmarshal(msg.Data(), &record); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(record.Resource, fmt.Sprintf("…(%d bytes)", len(huge))) {
			t.Errorf("%s: the cut is not marked: %q", name, record.Resource)
		}
		if !record.Truncated {
			t.Errorf("%s: the record does not state that it lacks fields", name)
		}
		if len(msg.Data()) > 4<<10 {
			t.Errorf("%s: %d bytes", name, len(msg.Data()))
		}
	}
}

// A record that NATS can never store is dropped and counted, and the next one is stored.
func TestRecorder_TooLargeIsFinal(t *testing.T) {
	for name, limit := range map[string]func(t *testing.T) jetstream.JetStream{
		"the server's max_payload": func(t *testing.T) jetstream.JetStream {
			return natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: 2048}))
		},
		"the stream's largest message": func(t *testing.T) jetstream.JetStream {
			js := natstest.Start(t)
			stream, err := js.Stream(t.Context(), streams.Audit)
			if err != nil {
				t.Fatal(err)
			}
			config := stream.CachedInfo().Config
			config.MaxMsgSize = 1500
			if _, err := js.UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			return js
		},
	} {
		t.Run(name, func(t *testing.T) {
			js := limit(t)
			r := start(t, js)
			for range 300 { // more than the window
				r.Record(call(), streams.AccountPlatform, auditlog.ClassOperator, audit.Record{
					Decision:  "allowed",
					Principal: strings.Repeat("p", 256),
					Procedure: strings.Repeat("m", 256),
					Resource:  strings.Repeat("r", 512),
					Reason:    strings.Repeat("x", 1024),
				})
			}
			r.operate("/after.It/All")
			if record := read(t, js, "audit.>").next(); record.Procedure != "/after.It/All" {
				t.Errorf("%+v is stored", record)
			}
			r.stop()
			lost := r.metric(t, "headgate_audit_lost_total", "operators", string(natsclient.RefusedTooLarge))
			if lost != 300 {
				t.Errorf("%v records are counted as too large, want 300", lost)
			}
			if retries := r.metric(t, "headgate_audit_retries_total", "operators"); retries != 0 {
				t.Errorf("%v further attempts after a final error", retries)
			}
		})
	}
}

// While NATS is unreachable records wait, within the queue's bounds; after its return each is stored
// exactly once.
func TestRecorder_RecordsWaitForNATS(t *testing.T) {
	options := server.Options{StoreDir: t.TempDir()}
	first := natstest.Server(t, &options)
	js := natstest.Connect(t, first)
	r := start(t, js)
	r.operate("/x.Y/M0")
	operators := read(t, js, auditlog.Subject(streams.AccountPlatform, auditlog.ClassOperator))
	if record := operators.next(); record.Procedure != "/x.Y/M0" {
		t.Fatalf("%+v", record)
	}
	options.Port = first.Addr().(*net.TCPAddr).Port
	first.Shutdown()
	first.WaitForShutdown()

	// One tenant sends a flood of denials, another one a few, and the operator some calls.
	for i := range 10_000 {
		r.Deny(call(), "flood", audit.Record{
			Decision:  "denied",
			Principal: fmt.Sprint("p", i/100),
			Procedure: "/x.Y/Flood",
			Resource:  strings.Repeat("r", 95<<10),
		})
	}
	for i := range 3 {
		r.Deny(call(), "quiet",
			audit.Record{Decision: "denied", Principal: "q", Procedure: fmt.Sprint("/x.Y/Quiet", i)})
	}
	const operations = 600 // more than the window
	for i := range operations {
		r.operate(fmt.Sprint("/x.Y/M", i+1))
	}
	if queued := r.metric(t, "headgate_audit_queued", "operators"); queued != operations {
		t.Errorf("%v operators' records are queued, want %d", queued, operations)
	}
	if bytes := r.metric(t, "headgate_audit_queued_bytes", "denials"); bytes == 0 || bytes > 8<<20 {
		t.Errorf("denials take %v bytes, the bound is 8 MiB", bytes)
	}
	if age := r.metric(t, "headgate_audit_oldest_seconds", "operators"); age <= 0 {
		t.Errorf("the oldest record's age is %v", age)
	}

	natstest.Server(t, &options)
	seen := map[string]int{}
	for range operations {
		seen[operators.next().Procedure]++
	}
	if len(seen) != operations {
		t.Errorf("%d different records of %d arrive", len(seen), operations)
	}
	quiet := read(t, js, auditlog.Subject("quiet", auditlog.ClassDenied))
	for i := range 3 {
		if record := quiet.next(); record.Procedure != fmt.Sprint("/x.Y/Quiet", i) {
			t.Errorf("%+v is the other tenant's denial %d", record, i)
		}
	}
	r.stop()
	for _, queue := range []string{"operators", "denials"} {
		if queued := r.metric(t, "headgate_audit_queued", queue) + r.metric(t, "headgate_audit_queued_bytes", queue) +
			r.metric(t, "headgate_audit_oldest_seconds", queue); queued != 0 {
			t.Errorf("%s: something is queued still: %v", queue, queued)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("audit._platform.operator"))
	if err != nil || info.State.Subjects["audit._platform.operator"] != operations+1 {
		t.Errorf("%v records, %v, want each once", info.State.Subjects, err)
	}
}

// A process of an earlier version that starts removes the stream's new subjects: records wait until
// the recorder has restored them, and none is lost.
func TestRecorder_RestoresItsStream(t *testing.T) {
	js := natstest.Start(t)
	stream, err := js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Subjects, config.MaxMsgsPerSubject, config.MaxMsgSize = []string{"audit.*"}, -1, -1
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	r := start(t, js)
	r.operate("/x.Y/M0")
	r.operate("/x.Y/M1")
	operators := read(t, js, auditlog.Subject(streams.AccountPlatform, auditlog.ClassOperator))
	for i := range 2 {
		if record := operators.next(); record.Procedure != fmt.Sprint("/x.Y/M", i) {
			t.Errorf("%+v is record %d", record, i)
		}
	}
}
