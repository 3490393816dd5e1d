package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// appendEvents appends events to an aggregate of acme, from a version on.
func appendEvents(t *testing.T, js jetstream.JetStream, id string, last uint64, version int64, count int) uint64 {
	t.Helper()
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	tenant := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), tenant)
	for n := range count {
		events := []journal.Event{{
			ID: contextkit.NewID(), Type: "noted", AggregateType: "note", AggregateID: id, Version: version + int64(n),
			Time:    time.Now(),
			Data:    []byte(fmt.Sprintf(`{"n":%d}`, n)),
			Command: journal.CommandRef{IdempotencyKey: fmt.Sprintf("%s-%d", id, version+int64(n)), Fingerprint: "f"},
		}}
		err := eventLog.Append(ctx, tenant, last, events)
		for tries := 0; errors.Is(err, journal.ErrConflict) && tries < 100; tries++ {
			time.Sleep(
				50 * time.Millisecond,
			) // a new leader may not have applied the last event yet, and reports nothing when it has
			err = eventLog.Append(ctx, tenant, last, events)
		}
		if err != nil {
			t.Fatal(err)
		}
		last = events[0].Sequence
	}
	return last
}

func put(t *testing.T, js jetstream.JetStream, bucket, key, value string) {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// bare returns JetStream over a server without streams.
func bare(t *testing.T) jetstream.JetStream {
	t.Helper()
	conn, err := natsclient.Connect(natstest.Server(t, &server.Options{}).ClientURL(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func schedule(t *testing.T, js jetstream.JetStream, instance string, at time.Time) {
	t.Helper()
	tenant := natstest.Tenant(t, "acme")
	msg := &nats.Msg{
		Subject: streams.LaterSubject(tenant, "flow", instance),
		Header:  nats.Header{"Tenant-Id": {"acme"}},
	}
	if _, err := js.PublishMsg(t.Context(), msg, jetstream.WithScheduleAt(at),
		jetstream.WithScheduleTarget(streams.WorkSubject(tenant, "flow", instance)),
		jetstream.WithScheduleTTLNever()); err != nil {
		t.Fatal(err)
	}
}

// fill stores something in every kind of stream.
func fill(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	appendEvents(t, js, "a", 0, 1, 700)
	appendEvents(t, js, "b", 0, 1, 3)
	for n := range 5 {
		put(t, js, streams.BucketWorkflows, "acme.flow.i1", fmt.Sprintf(`{"n":%d}`, n))
	}
	put(t, js, streams.BucketInstances, "acme.flow.i3", `{}`)
	put(t, js, streams.BucketWorkflows, "acme.flow.i2", `{}`)
	put(t, js, streams.BucketTenants, "acme", `{}`)
	put(t, js, streams.BucketNodes, "n1", `{}`)
	kv, err := js.KeyValue(t.Context(), streams.BucketWorkflows)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "acme.flow.i2"); err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(t.Context(), streams.Events, jetstream.ConsumerConfig{
		Durable:        streams.RunnerConsumer("acme"),
		FilterSubjects: []string{"events.acme.note.*"},
		AckPolicy:      jetstream.AckExplicitPolicy,
		MaxDeliver:     -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := consumer.Fetch(10)
	if err != nil {
		t.Fatal(err)
	}
	for msg := range batch.Messages() {
		if err := msg.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	schedule(t, js, "far", time.Now().Add(time.Hour))
	schedule(t, js, "near", time.Now().Add(time.Second))
}

func TestRestore_EqualsTheBackup(t *testing.T) {
	js := natstest.Start(t)
	fill(t, js)
	dir := filepath.Join(t.TempDir(), "b")
	manifest, err := backup.Take(t.Context(), js, dir, backup.Options{Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Last != 703 {
		t.Errorf("the journal in the backup ends at %d, want 703", manifest.Last)
	}
	restored := bare(t)
	report, err := backup.Restore(t.Context(), restored, dir, backup.Target{}, backup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Events != 703 || report.Aggregates != 2 {
		t.Errorf("Restore reports %+v, want 703 events of 2 aggregates", report)
	}
	if err := setup.Ensure(t.Context(), restored, 1); err != nil {
		t.Fatalf("start of a node on the restored data: %v", err)
	}
	before, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	after, err := journal.Open(t.Context(), restored)
	if err != nil {
		t.Fatal(err)
	}
	if before.Epoch() == after.Epoch() {
		t.Error("the restored journal has the epoch of the original")
	}
	var sequences []uint64
	if err := after.Load(t.Context(), natstest.Tenant(t, "acme"), "note", "b", 1, 0, func(e journal.Event) error {
		sequences = append(sequences, e.Sequence)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(sequences) != 3 || sequences[2] != 703 {
		t.Errorf("sequences of aggregate b: %v, want three up to 703", sequences)
	}
	// An append continues where the backup ends.
	if last := appendEvents(t, restored, "b", 703, 4, 1); last != 704 {
		t.Errorf("sequence of the next event: %d, want 704", last)
	}
	consumer, err := restored.Consumer(t.Context(), streams.Events, streams.RunnerConsumer("acme"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if meta, _ := next.Metadata(); meta.Sequence.Stream != 11 {
		t.Errorf("the runner continues at %d, want 11", meta.Sequence.Stream)
	}
	kv, err := restored.KeyValue(t.Context(), streams.BucketWorkflows)
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := kv.Get(t.Context(), "acme.flow.i1"); err != nil || string(entry.Value()) != `{"n":4}` {
		t.Errorf("restored record: %v, %v", entry, err)
	}
	if _, err := kv.Get(t.Context(), "acme.flow.i2"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("read of a deleted record: %v, want ErrKeyNotFound", err)
	}
	if nodes, err := restored.KeyValue(t.Context(), streams.BucketNodes); err != nil {
		t.Error(err)
	} else if _, err := nodes.Get(t.Context(), "n1"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("read of a node's announcement: %v, want ErrKeyNotFound", err)
	}
}

func TestRestore_SchedulesComeDue(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	schedule(t, js, "far", time.Now().Add(time.Hour))
	schedule(t, js, "near", time.Now().Add(4*time.Second))
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	restored := bare(t)
	if _, err := backup.Restore(t.Context(), restored, dir, backup.Target{}, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	due, err := restored.CreateOrUpdateConsumer(t.Context(), streams.Work, jetstream.ConsumerConfig{
		Durable: "due", FilterSubject: "work.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	msg, err := due.Next(jetstream.FetchContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if msg.Subject() != "work.acme.flow.near" || msg.Headers().Get("Tenant-Id") != "acme" {
		t.Errorf("first due message: %s with headers %v", msg.Subject(), msg.Headers())
	}
	stream, err := restored.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	far, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.flow.far")
	if err != nil {
		t.Fatalf("read of the message that is due in an hour: %v", err)
	}
	if far.Header.Get("Nats-Schedule") == "" {
		t.Errorf("the message that is due in an hour has no schedule: %v", far.Header)
	}
}

// TestTake_UnderLoadRecordsReferToEventsInIt takes a backup while a writer appends an event and
// then records its sequence, as runners do.
func TestTake_UnderLoadRecordsReferToEventsInIt(t *testing.T) {
	js := natstest.Start(t)
	appendEvents(t, js, "early", 0, 1, 500)
	var written atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		last, version := uint64(0), int64(1)
		for {
			select {
			case <-stop:
				return
			default:
			}
			last = appendEvents(t, js, "busy", last, version, 1)
			version++
			put(t, js, streams.BucketWorkflows, fmt.Sprintf("acme.flow.i%d", version%50), fmt.Sprint(last))
			written.Store(last)
		}
	}()
	for written.Load() < 600 { // the writer is running
		select {
		case <-stopped:
			t.FailNow()
		case <-time.After(time.Millisecond):
		}
	}
	began := written.Load()
	dir := filepath.Join(t.TempDir(), "b")
	manifest, err := backup.Take(t.Context(), js, dir, backup.Options{})
	close(stop)
	natstest.Await(t, stopped, "the writer stops")
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Last < began {
		t.Errorf("the backup ends at %d, and %d was acknowledged before it began", manifest.Last, began)
	}
	restored := bare(t)
	if _, err := backup.Restore(t.Context(), restored, dir, backup.Target{}, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	kv, err := restored.KeyValue(t.Context(), streams.BucketWorkflows)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 50 {
		t.Errorf("%d records were restored, want 50", len(keys))
	}
	for _, key := range keys {
		entry, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var sequence uint64
		if err := json.Unmarshal(entry.Value(), &sequence); err != nil || sequence > manifest.Last {
			t.Errorf("%s refers to event %d, but the journal ends at %d (%v)", key, sequence, manifest.Last, err)
		}
	}
}

func TestTake_OverwritesNothing(t *testing.T) {
	js := natstest.Start(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); !errors.Is(err, backup.ErrExists) {
		t.Errorf("Take into a directory with a file: %v, want ErrExists", err)
	}
}

func TestTake_InterruptedIsIncomplete(t *testing.T) {
	js := natstest.Start(t)
	fill(t, js)
	dir := filepath.Join(t.TempDir(), "b")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := backup.Take(ctx, js, dir, backup.Options{Progress: func(backup.Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled Take: %v, want context.Canceled", err)
	}
	if _, err := backup.Restore(
		t.Context(), bare(t), dir, backup.Target{}, backup.Options{},
	); !errors.Is(err, backup.ErrIncomplete) {
		t.Errorf("Restore of an incomplete backup: %v, want ErrIncomplete", err)
	}
}

func TestRestore_RejectsUnusableBackups(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	fill(t, js)
	take := func() string {
		dir := filepath.Join(t.TempDir(), "b")
		if _, err := backup.Take(t.Context(), js, dir, backup.Options{Version: "7"}); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	edit := func(file string, change func(string) string) string {
		dir := take()
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	without := func(file string) string {
		dir := take()
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, of := range map[string]struct {
		dir  string
		want error
	}{
		"newer format": {
			edit("manifest.json", func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 2`, 1) }),
			backup.ErrNewer,
		},
		"newer stream": {edit("manifest.json", func(s string) string {
			return strings.Replace(s, `"headgate.format": "`, `"headgate.floor": "9", "headgate.format": "9`, 1)
		}), backup.ErrNewer},
		"no manifest":  {without("manifest.json"), backup.ErrIncomplete},
		"missing file": {without("WORK.s2"), backup.ErrDamaged},
		"altered bytes": {
			edit("EVENTS.s2", func(s string) string { return s[:900] + "x" + s[901:] }), backup.ErrDamaged,
		},
		"truncated file": {edit("EVENTS.s2", func(s string) string { return s[:len(s)-10] }), backup.ErrDamaged},
		"changed position": {
			edit("positions.json",
				func(s string) string { return strings.Replace(s, `"stream": 10`, `"stream": 90`, 1) }),
			backup.ErrDamaged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := bare(t)
			if _, err := backup.Restore(
				t.Context(), target, of.dir, backup.Target{}, backup.Options{},
			); !errors.Is(err, of.want) {
				t.Errorf("Restore: %v, want %v", err, of.want)
			}
			if err := setup.Ensure(t.Context(), target, 1); err != nil {
				t.Errorf("a rejected Restore has changed the server: %v", err)
			}
		})
	}
}

func TestRestore_ReplacesDataOnlyIfAsked(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	fill(t, js)
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	other := natstest.Start(t)
	appendEvents(t, other, "other", 0, 1, 1)
	if _, err := backup.Restore(
		t.Context(), other, dir, backup.Target{}, backup.Options{},
	); !errors.Is(err, backup.ErrData) {
		t.Errorf("Restore over data without Replace: %v, want ErrData", err)
	}
	if _, err := backup.Restore(t.Context(), other, dir, backup.Target{Replace: true}, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	journal, err := journal.Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if last, err := journal.Last(t.Context(), natstest.Tenant(t, "acme")); err != nil || last != 703 {
		t.Errorf("the journal ends at %d (%v), want 703", last, err)
	}
}

func TestRestore_InterruptedKeepsNodesFromStarting(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	fill(t, js)
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	target := bare(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := backup.Restore(ctx, target, dir, backup.Target{}, backup.Options{Progress: func(p backup.Progress) {
		if p.Step == "restore" && p.Stream == streams.Events {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled Restore: %v, want context.Canceled", err)
	}
	if err := setup.Ensure(t.Context(), target, 1); !errors.Is(err, setup.ErrRestoring) {
		t.Errorf("start of a node after an interrupted Restore: %v, want ErrRestoring", err)
	}
	if _, err := backup.Restore(t.Context(), target, dir, backup.Target{Replace: true}, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := setup.Ensure(t.Context(), target, 1); err != nil {
		t.Errorf("start of a node after a complete Restore: %v", err)
	}
}

func TestRestore_RejectedWhileNodesRun(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fleet.Announce(
			ctx, js, fleet.Node{ID: "aggregate-1", Kind: contextkit.KindAggregate, Endpoint: "127.0.0.1:1"},
			func(context.Context, *fleet.Node) error { return nil },
		)
	}()
	_, err := backup.Restore(t.Context(), js, dir, backup.Target{Replace: true}, backup.Options{})
	cancel()
	natstest.Await(t, done, "the announcement ends")
	if !errors.Is(err, backup.ErrRunning) || !strings.Contains(err.Error(), "aggregate-1") {
		t.Errorf("Restore while a node runs: %v, want ErrRunning with its id", err)
	}
}
