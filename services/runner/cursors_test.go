package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// consumers returns the number of consumers of a stream.
func consumers(t *testing.T, js jetstream.JetStream, stream string) int {
	t.Helper()
	handle, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := handle.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Consumers
}

// usage returns the live heap in bytes, and the number of goroutines.
func usage() (heap uint64, goroutines int) {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc, runtime.NumGoroutine()
}

func TestCursors_TenantsAddNoConsumersOrGoroutines(t *testing.T) {
	const count = 1_200 // nats-server allows 1,000 consumers per stream by default
	var served []string
	for n := range count {
		served = append(served, fmt.Sprintf("t%04d", n))
	}
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, served, func(*fixture) {})
	heap, goroutines := usage()
	f.run(t)
	wait(t, "the tenants are not acquired", func() bool { return f.node.Owned() == count })
	for _, tenant := range []string{served[0], served[count/2], served[count-1]} {
		f.wallets(t, tenant)
		f.transfer(t, tenant, "t", "b", 300)
		f.ended(t, tenant, "t")
	}
	if n := consumers(t, f.js, streams.Events); n > 8 {
		t.Errorf("%d consumers on EVENTS", n)
	}
	if n := consumers(t, f.js, streams.Work); n != 0 {
		t.Errorf("%d consumers on WORK", n)
	}
	var perTenant int64
	var further int
	defer func() {
		t.Logf("%d bytes of heap per tenant, %d additional goroutines for %d tenants", perTenant, further, count)
	}()
	// Temporary resources of the start are released soon, here and in NATS, which runs in this process.
	wait(t, "an idle tenant uses more than 32 kB, or a goroutine", func() bool {
		heapNow, goroutinesNow := usage()
		perTenant, further = (int64(heapNow)-int64(heap))/count, goroutinesNow-goroutines
		return perTenant <= 32<<10 && further <= 100
	})
}

// ancient creates the durable consumer that earlier versions created for a tenant, and delivers events from it. It
// acknowledges those for which acked returns true; the others are redelivered soon.
func ancient(t *testing.T, js jetstream.JetStream, tenant string, deliver int, acked func(event journal.Event) bool) {
	t.Helper()
	consumer, err := js.CreateConsumer(t.Context(), streams.Events, jetstream.ConsumerConfig{
		Durable:        "runner-" + tenant,
		FilterSubjects: []string{"events." + tenant + ".transfer.*"},
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        time.Second,
		MaxDeliver:     -1,
		MaxAckPending:  64,
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Fetch(deliver)
	if err != nil {
		t.Fatal(err)
	}
	for msg := range messages.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		event, err := journal.ReadEvent(journal.Message{
			Subject:  msg.Subject(),
			Header:   msg.Headers(),
			Data:     msg.Data(),
			Sequence: meta.Sequence.Stream,
			Time:     meta.Timestamp,
		})
		if err != nil {
			t.Fatal(err)
		}
		if acked(event) {
			if err := msg.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if messages.Error() != nil {
		t.Fatal(messages.Error())
	}
}

func TestCursors_StartAtPositionOfDurableConsumer(t *testing.T) {
	t.Parallel()
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme", "globex", "hooli"},
		func(*fixture) {})
	for _, tenant := range f.served {
		f.wallets(t, tenant)
		for n := range 10 {
			f.transfer(t, tenant, fmt.Sprintf("t%d", n), "b", 1)
		}
	}
	// acme has acknowledged 0 to 2, 4 and 6 of 0 to 7; globex none of 0 to 3; hooli all of 0 to 4.
	done := map[string]bool{}
	ancient(t, f.js, "acme", 8, func(e journal.Event) bool {
		done["acme/"+e.AggregateID] = e.AggregateID <= "t2" || e.AggregateID == "t4" || e.AggregateID == "t6"
		return done["acme/"+e.AggregateID]
	})
	ancient(t, f.js, "globex", 4, func(journal.Event) bool { return false })
	ancient(t, f.js, "hooli", 5, func(e journal.Event) bool { done["hooli/"+e.AggregateID] = true; return true })
	var runs sync.Map // tenant/transfer → number of starts
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetCommand() == "withdraw" {
			count, _ := runs.LoadOrStore(req.GetTenantId()+"/"+req.GetIdempotencyKey(), new(atomic.Int32))
			count.(*atomic.Int32).Add(1)
		}
		return nil
	})
	f.before = func(s *runner.Service) { s.SetSettled(0) }
	f.run(t)
	for _, tenant := range f.served {
		want := 0
		for n := range 10 {
			id := fmt.Sprintf("t%d", n)
			if !done[tenant+"/"+id] {
				f.ended(t, tenant, id)
				want++
			}
		}
		for n := range 10 {
			id := fmt.Sprintf("t%d", n)
			_, err := f.admin.GetWorkflow(as(t, tenant),
				&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: id})
			if done[tenant+"/"+id] != (connect.CodeOf(err) == connect.CodeNotFound) {
				t.Errorf("%s %s was acknowledged: %v; its instance: %v", tenant, id, done[tenant+"/"+id], err)
			}
		}
		if got := f.balance(t, tenant, "b"); got != float64(want) {
			t.Errorf("%s: %v moved, want %d", tenant, got, want)
		}
	}
	runs.Range(func(key, count any) bool {
		if n := count.(*atomic.Int32).Load(); n != 1 {
			t.Errorf("%v started %d times", key, n)
		}
		return true
	})
	// The consumers are deleted once nothing is left to deliver. To an earlier version the tenants appear paused,
	// which they are not.
	wait(t, "the consumers are not deleted", func() bool {
		left, err := f.node.DeleteDurables(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
	for _, tenant := range f.served {
		kept, err := kv.Read(t.Context(), f.js, streams.BucketRunner, "paused."+tenant)
		if err != nil || string(kept.Value) != "paused" {
			t.Errorf("%s for an earlier version: %q, %v", tenant, kept.Value, err)
		}
		if err := f.node.Ready(t.Context(), natstest.Tenant(t, tenant)); err != nil {
			t.Error(err)
		}
	}
	// After a restart nothing runs again.
	f.stop()
	f.run(t)
	f.transfer(t, "acme", "last", "b", 1)
	f.ended(t, "acme", "last")
	if got := f.balance(t, "acme", "b"); got != 6 {
		t.Errorf("after a restart: %v moved by acme, want 6", got)
	}
}

func TestCursors_WaitForEveryAnnouncedRunner(t *testing.T) {
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme"}, func(*fixture) {})
	f.wallets(t, "acme")
	bucket, err := f.js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	announce := func() {
		data, err := json.Marshal(fleet.Node{
			ID:       "runner-old",
			Kind:     contextkit.KindRunner,
			Endpoint: "127.0.0.1:1",
			Ready:    true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Put(t.Context(), "runner-old", data); err != nil {
			t.Fatal(err)
		}
	}
	announce()
	f.before = func(s *runner.Service) { s.SetSettled(100 * time.Millisecond) }
	f.run(t)
	f.transfer(t, "acme", "before", "b", 1)
	f.ended(t, "acme", "before")
	if f.node.ByCursors() {
		t.Fatal("triggers are read by cursors although an earlier version is announced")
	}
	if _, err := f.admin.PauseTenant(as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "acme"}); err != nil {
		t.Fatal(err)
	}
	f.transfer(t, "acme", "between", "b", 1)
	announce()
	if err := bucket.Delete(t.Context(), "runner-old"); err != nil {
		t.Fatal(err)
	}
	wait(t, "triggers are not read by cursors", f.node.ByCursors)
	res, err := f.admin.Status(platform(t), &adminv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// The earlier version's consumer may have delivered the event before the pause.
	if acme := res.GetStatus().GetTenants()[0]; !acme.GetPaused() || acme.GetPending()+acme.GetAckPending() != 1 {
		t.Fatalf("got %v, want the tenant still paused, with one event waiting", acme)
	}
	if _, err := f.admin.ResumeTenant(as(t, "acme"), &adminv1.ResumeTenantRequest{TenantId: "acme"}); err != nil {
		t.Fatal(err)
	}
	f.transfer(t, "acme", "after", "b", 1)
	f.ended(t, "acme", "between")
	f.ended(t, "acme", "after")
	if got := f.balance(t, "acme", "b"); got != 3 {
		t.Errorf("%v moved by acme, want 3", got)
	}
	// A decision that was made with cursors survives a restart.
	if _, err := f.admin.PauseTenant(as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "acme"}); err != nil {
		t.Fatal(err)
	}
	f.stop()
	f.run(t)
	if f.node.Ready(t.Context(), natstest.Tenant(t, "acme")) == nil {
		t.Error("the tenant is not paused after a restart")
	}
}

// fleet runs several runners on one server, each with a separate connection, announced with its tenants.
type nodes struct {
	*fixture

	runners []*fixture
}

const fleetLost = 2 * time.Second

func startFleet(t *testing.T, source model.Source, count int, served []string) *nodes {
	t.Helper()
	s := natstest.Server(t, &server.Options{})
	fl := &nodes{fixture: startOn(t, natstest.Connect(t, s), source, webhook.Config{}, served, func(*fixture) {})}
	for n := range count {
		r := &fixture{
			source: source,
			served: served,
			js:     natstest.Connect(t, s),
			nodeID: fmt.Sprintf("runner-%d", n),
			lost:   fleetLost,
			gate:   &gate{next: fl.gate.next},
		}
		r.run(t)
		r.announce(t)
		fl.runners = append(fl.runners, r)
	}
	fl.admin = fl.runners[0].admin
	return fl
}

// announce announces the runner while it runs.
func (f *fixture) announce(t *testing.T) {
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(context.Background()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fleet.Announce(ctx, f.js, fleet.Node{
			ID:       f.nodeID,
			Kind:     contextkit.KindRunner,
			Endpoint: "127.0.0.1:1",
			Tenants:  f.served,
			Runner:   runner.Abilities,
		}, func(context.Context, *fleet.Node) error { return nil })
	}()
	stop := f.stop
	var once sync.Once
	f.stop = func() {
		once.Do(func() { cancel(); <-done })
		stop()
	}
	t.Cleanup(func() { cancel(); <-done })
}

func (fl *nodes) owned() (counts []int, sum int) {
	for _, r := range fl.runners {
		counts, sum = append(counts, r.node.Owned()), sum+r.node.Owned()
	}
	return counts, sum
}

func TestFleet_TenantsAreSharedAndFailOver(t *testing.T) {
	t.Parallel()
	var served []string
	for n := range 30 {
		served = append(served, fmt.Sprintf("t%02d", n))
	}
	fl := startFleet(t, model.Wallet, 3, served)
	shared := func() bool {
		counts, sum := fl.owned()
		return sum == len(served) && counts[0] > 2 && counts[1] > 2 && counts[2] > 2
	}
	wait(t, "each runner has its share", shared)
	money := 0
	move := func(what string) {
		t.Helper()
		money++
		for _, tenant := range served {
			fl.transfer(t, tenant, what, "b", 1)
		}
		for _, tenant := range served {
			fl.ended(t, tenant, what)
		}
		for _, tenant := range served {
			if got := fl.balance(t, tenant, "b"); got != float64(money) {
				t.Errorf("%s: %s moved %v, want %d", what, tenant, got, money)
			}
		}
	}
	for _, tenant := range served {
		fl.wallets(t, tenant)
	}
	move("all")
	if _, err := fl.runners[2].admin.Drain(platform(t), &adminv1.DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	move("drained")
	if counts, sum := fl.owned(); counts[2] != 0 || sum != len(served) {
		t.Errorf("after a drain: tenants by runner %v", counts)
	}
	if _, err := fl.runners[2].admin.Resume(platform(t), &adminv1.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the drained runner has its share again", shared)
	move("resumed")
	fl.runners[1].stop()
	move("left")
	// A runner that loses NATS is dead for the others.
	fl.runners[2].gate.set(func(context.Context, *aggregatev1.SubmitRequest) error {
		return connect.NewError(connect.CodeUnavailable, "cut off")
	})
	fl.runners[2].js.Conn().Close()
	move("lost")
	if n := fl.runners[0].node.Owned(); n != len(served) {
		t.Errorf("the last runner owns %d tenants", n)
	}
}

func TestFleet_DueWorkSurvivesRunnerDeath(t *testing.T) {
	t.Parallel()
	served := []string{"acme", "globex", "hooli", "initech"}
	fl := startFleet(t, withSteps(t, debit+"      - {name: cool, wait: \"'2s'\"}\n"+complete), 2, served)
	wait(t, "each runner has its share", func() bool {
		counts, sum := fl.owned()
		return sum == len(served) && counts[0] > 0 && counts[1] > 0
	})
	for _, tenant := range served {
		fl.wallets(t, tenant)
		fl.transfer(t, tenant, "t", "b", 1)
	}
	for _, tenant := range served {
		wait(t, "the debit is done", func() bool {
			got, err := fl.admin.GetWorkflow(as(t, tenant),
				&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "t"})
			return err == nil && strings.HasPrefix(steps(got), "debit done")
		})
	}
	fl.runners[1].js.Conn().Close()
	for _, tenant := range served {
		if got := fl.ended(t, tenant, "t"); steps(got) != "debit done, cool done, complete done" {
			t.Errorf("%s: %s", tenant, steps(got))
		}
	}
	wait(t, "all work is done", func() bool {
		stream, err := fl.js.Stream(t.Context(), streams.Work)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
}

func TestCursors_StuckTenantDelaysNoOther(t *testing.T) {
	t.Parallel()
	f := startWith(t, withSteps(t, "      - {name: cool, wait: \"'1s'\"}\n"+debit+complete), webhook.Config{})
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetTenantId() == "acme" {
			return connect.NewError(connect.CodeUnavailable, "not now")
		}
		return nil
	})
	f.wallets(t, "acme")
	f.wallets(t, "globex")
	const many = 200 // more than a tenant may have running or in its window
	for n := range many {
		f.transfer(t, "acme", fmt.Sprintf("t%d", n), "b", 1)
	}
	f.transfer(t, "globex", "t", "b", 1)
	f.ended(t, "globex", "t")
	if _, err := f.admin.PauseTenant(as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "acme"}); err != nil {
		t.Fatal(err)
	}
	f.transfer(t, "globex", "u", "b", 1)
	f.ended(t, "globex", "u")
	f.gate.set(nil)
	if _, err := f.admin.ResumeTenant(as(t, "acme"), &adminv1.ResumeTenantRequest{TenantId: "acme"}); err != nil {
		t.Fatal(err)
	}
	for n := range many {
		f.ended(t, "acme", fmt.Sprintf("t%d", n))
	}
	if got := f.balance(t, "acme", "a"); got != 1000-many {
		t.Errorf("balance of acme is %v, want %d", got, 1000-many)
	}
}
