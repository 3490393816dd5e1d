package lease_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/lease"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// process is a member of the group in a test.
type process struct {
	*lease.Lease
	terms chan string   // id of each term that begins
	ended chan string   // id of each term that ends
	stop  func()        // ends the process and waits
	busy  chan struct{} // terms wait for it before they return
}

func start(t *testing.T, js jetstream.JetStream, node string, lost time.Duration) *process {
	t.Helper()
	l, err := lease.New(t.Context(), js, lease.Config{
		Group: "test",
		Node:  node,
		Every: lost / 10,
		Lost:  lost,
		Log:   zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		Lease: l,
		terms: make(chan string, 16),
		ended: make(chan string, 16),
		busy:  make(chan struct{}),
	}
	close(p.busy)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx, func(ctx context.Context, id string) {
			p.terms <- id
			<-ctx.Done()
			<-p.busy
			p.ended <- id
		})
	}()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	return p
}

// until waits until a process sees the members that are wanted.
func until(t *testing.T, p *process, what string, holds func([]lease.Member) bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		members, changed := p.Members()
		if holds(members) {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: %+v", what, members)
		}
	}
}

func TestLease_EndsInOrderOrAfterItsSilence(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	const lost = time.Second
	one := start(t, js, "one", lost)
	two := start(t, js, "two", lost)
	first := natstest.Await(t, one.terms, "a term begins")
	natstest.Await(t, two.terms, "a term begins")
	for _, p := range []*process{one, two} {
		until(t, p, "both are members", func(m []lease.Member) bool { return len(m) == 2 })
	}
	if alive, err := two.Alive(t.Context(), first); err != nil || !alive || !one.Valid() {
		t.Errorf("the lease of a live process: alive %v, %v; valid %v", alive, err, one.Valid())
	}
	one.SetTaking(false)
	until(t, two, "one member takes no more work", func(m []lease.Member) bool {
		for _, member := range m {
			if member.Node == "one" {
				return !member.Taking
			}
		}
		return false
	})
	one.stop()
	until(t, two, "one member has left", func(m []lease.Member) bool { return len(m) == 1 })
	if alive, err := two.Alive(t.Context(), first); err != nil || alive {
		t.Errorf("a lease that was released: alive %v, %v", alive, err)
	}

	// A lease that is not renewed is removed.
	bucket, err := kv.Open[lease.Member](t.Context(), js, streams.BucketLeases)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.PlatformContext(t.Context())
	revision, err := bucket.Put(ctx, "test.dead", lease.Member{ID: "dead", Node: "three", Taking: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	until(t, two, "the silent member is listed", func(m []lease.Member) bool { return len(m) == 2 })
	until(t, two, "the silent member is removed", func(m []lease.Member) bool { return len(m) == 1 })
	if _, err := bucket.Put(ctx, "test.dead", lease.Member{ID: "dead"}, revision); !errors.Is(err, kv.ErrChanged) {
		t.Errorf("a lease that was taken away is renewed: %v", err)
	}
}

func TestLease_OwnerLearnsThatItIsLost(t *testing.T) {
	js := natstest.Start(t)
	one := start(t, js, "one", time.Second)
	first := natstest.Await(t, one.terms, "a term begins")
	bucket, err := kv.Open[lease.Member](t.Context(), js, streams.BucketLeases)
	if err != nil {
		t.Fatal(err)
	}
	// Another process takes it away, as it does with one that stood still.
	for {
		kept, err := bucket.Get(t.Context(), "test."+first)
		if err != nil {
			t.Fatal(err)
		}
		err = bucket.Delete(contextkit.PlatformContext(t.Context()), "test."+first, kept.Revision)
		if err == nil {
			break
		}
		if !errors.Is(err, kv.ErrChanged) {
			t.Fatal(err)
		}
	}
	if ended := natstest.Await(t, one.ended, "the term ends"); ended != first {
		t.Errorf("term %s has ended, want %s", ended, first)
	}
	if second := natstest.Await(t, one.terms, "the next term begins"); second == first || one.ID() != second {
		t.Errorf("the next term has lease %s, as lost; it holds %s", second, one.ID())
	}
}

func TestLease_IsRenewedWhileATermFinishes(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	one := start(t, js, "one", time.Second)
	two := start(t, js, "two", time.Second)
	first := natstest.Await(t, one.terms, "a term begins")
	one.busy = make(chan struct{})
	stopped := make(chan struct{})
	go func() { one.stop(); close(stopped) }()
	seen := 0
	ticker := time.NewTicker(200 * time.Millisecond) // longer in all than others wait
	defer ticker.Stop()
	for range 10 {
		<-ticker.C
		if alive, err := two.Alive(t.Context(), first); err == nil && alive {
			seen++
		}
	}
	if seen != 10 {
		t.Errorf("alive %d of 10 times while its work was finishing", seen)
	}
	close(one.busy)
	natstest.Await(t, stopped, "the process stops")
	if alive, err := two.Alive(t.Context(), first); err != nil || alive {
		until(t, two, "the member has left", func(m []lease.Member) bool { return len(m) == 1 })
	}
}
