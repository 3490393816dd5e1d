package runner_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// integral runs the integrity check of a fixture's runner until the runner is stopped.
func (f *fixture) integral(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	integrity := f.node.Integrity()
	go func() { done <- integrity.Run(ctx, false, zerolog.Nop()) }()
	stop := f.stop
	f.stop = sync.OnceFunc(func() {
		stop()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
}

// begun counts the withdrawals of each transfer's workflow.
type begun struct {
	mu     sync.Mutex
	counts map[string]int
}

func (b *begun) count(_ context.Context, req *aggregatev1.SubmitRequest) error {
	if req.GetCommand() == "withdraw" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.counts[req.GetTenantId()+"/"+req.GetIdempotencyKey()]++
	}
	return nil
}

// lossy fills acme's journal with transfers that a runner has processed, and returns the sequence after which those
// were requested that are in the last block of its files.
func lossy(t *testing.T, f *fixture) (end uint64) {
	t.Helper()
	f.wallets(t, "acme")
	for n := range 3 {
		f.transfer(t, "acme", fmt.Sprintf("kept%d", n), "b", 1)
		f.ended(t, "acme", fmt.Sprintf("kept%d", n))
	}
	natstest.NextBlock(t, f.js, "events.filler.none.none")
	end = lastSequence(t, f.js)
	for n := range 10 {
		f.transfer(t, "acme", fmt.Sprintf("lost%d", n), "b", 1)
	}
	for n := range 10 {
		f.ended(t, "acme", fmt.Sprintf("lost%d", n))
	}
	if _, err := journal.Open(t.Context(), f.js); err != nil { // its check records the end
		t.Fatal(err)
	}
	return end
}

// removeEnd removes the blocks of a stopped server that contain the messages after [lossy]'s filler.
func removeEnd(t *testing.T, dir string) {
	t.Helper()
	natstest.RemoveBlock(t, dir, streams.Events, "events.acme.transfer.lost0")
	natstest.DropIndex(t, dir, streams.Events)
}

func lastSequence(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// again requests transfers whose events get the sequences of lost ones, and checks that each is executed once.
func again(t *testing.T, f *fixture) {
	t.Helper()
	counts := &begun{counts: map[string]int{}}
	f.gate.set(counts.count)
	before := f.balance(t, "acme", "b")
	const count = 12
	for n := range count {
		f.transfer(t, "acme", fmt.Sprintf("new%d", n), "b", 1)
	}
	for n := range count {
		f.ended(t, "acme", fmt.Sprintf("new%d", n))
	}
	if got := f.balance(t, "acme", "b"); got != before+count {
		t.Errorf("balance of b is %v after %v, want %d more", got, before, count)
	}
	counts.mu.Lock()
	defer counts.mu.Unlock()
	if len(counts.counts) != count {
		t.Errorf("%d transfers started, want %d", len(counts.counts), count)
	}
	for key, n := range counts.counts {
		if n != 1 {
			t.Errorf("%s started %d times", key, n)
		}
	}
}

func acceptLoss(t *testing.T, js jetstream.JetStream, end uint64) {
	t.Helper()
	loss, err := journal.AcceptLoss(contextkit.PlatformContext(t.Context()), js, "operator", "the disk is gone")
	if err != nil {
		t.Fatal(err)
	}
	if loss.Last > end {
		t.Fatalf("the journal ends at %d, want a loss of the events after %d", loss.Last, end)
	}
}

func TestCursors_AreCutToAcceptedJournalEnd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("that of a running runner is tested under the race detector")
	}
	for _, claimed := range []bool{false, true} {
		t.Run(fmt.Sprintf("left claimed %v", claimed), func(t *testing.T) {
			dir := t.TempDir()
			js, stop := natstest.StartStop(t, dir)
			f := startOn(t, js, model.Wallet, webhook.Config{}, []string{"acme"})
			f.integral(t)
			end := lossy(t, f)
			if !claimed {
				f.stop() // it writes its cursor, without an owner
			}
			kept, err := kv.Read(t.Context(), js, streams.BucketCursors, "acme")
			if err != nil || len(kept.Value) == 0 {
				t.Fatalf("cursor %q, %v", kept.Value, err)
			}
			f.stop()
			stop()
			removeEnd(t, dir)

			js, _ = natstest.StartStop(t, dir)
			acceptLoss(t, js, end)
			f = startOn(t, js, model.Wallet, webhook.Config{}, []string{"acme"})
			f.integral(t)
			again(t, f)
		})
	}
}

// TestCursors_OfRunningRunnerAreCutToAcceptedJournalEnd lets the server lose the end of the journal while a runner
// works.
func TestCursors_OfRunningRunnerAreCutToAcceptedJournalEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := natstest.Server(t, &server.Options{StoreDir: dir, MaxPayload: 8 << 20})
	options := &server.Options{StoreDir: dir, MaxPayload: 8 << 20, Port: natstest.Port(t, s)}
	js := natstest.Connect(t, s)
	f := startOn(t, js, model.Wallet, webhook.Config{}, []string{"acme"})
	f.integral(t)
	end := lossy(t, f)
	if damage := f.node.Integrity().Damage(); damage != nil {
		t.Fatal(damage)
	}
	s.Shutdown()
	s.WaitForShutdown()
	removeEnd(t, filepath.Clean(dir))
	changed := f.node.Integrity().Changed()
	natstest.Server(t, options)
	natstest.Await(t, changed, "the damage is found")
	if damage := f.node.Integrity().Damage(); damage == nil || damage.End == nil {
		t.Fatal(damage)
	}
	changed = f.node.Integrity().Changed()
	acceptLoss(t, js, end)
	natstest.Await(t, changed, "the accepted loss is noticed")
	// The commands' node is restarted.
	fresh := startOn(t, js, model.Wallet, webhook.Config{}, []string{"acme"}, func(*fixture) {})
	f.gate.set(nil)
	f.gate.mu.Lock()
	f.gate.next = fresh.gate.next
	f.gate.mu.Unlock()
	again(t, f)
}
