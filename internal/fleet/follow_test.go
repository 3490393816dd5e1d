package fleet_test

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// followed is the state of a follower of nodes.
type followed struct {
	mu       sync.Mutex
	fleet    fleet.Fleet
	verdicts map[string]fleet.Verdict
	asked    int
	failures int
}

func (f *followed) set(id string, v fleet.Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verdicts[id] = v
}

// state returns "" for a node that is not known, else "announced", "silent" or "lost".
func (f *followed) state(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.fleet.Lost {
		if l.Node.ID == id {
			return "lost"
		}
	}
	for _, node := range f.fleet.Nodes {
		if node.ID != id {
			continue
		}
		if !f.fleet.Silent[id].IsZero() {
			return "silent"
		}
		return "announced"
	}
	return ""
}

func (f *followed) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func follow(t *testing.T, js jetstream.JetStream) *followed {
	t.Helper()
	f := &followed{verdicts: map[string]fleet.Verdict{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fleet.FollowNodes(ctx, js, fleet.Follower{
			Each: func(fleet fleet.Fleet) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.fleet = fleet
			},
			Ask: func(_ context.Context, silent []fleet.Node) map[string]fleet.Verdict {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.asked++
				out := map[string]fleet.Verdict{}
				for _, node := range silent {
					out[node.ID] = f.verdicts[node.ID]
				}
				return out
			},
			Failed: func(error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.failures++
			},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// announceNode announces a node until stop is called, as a process does.
func announceNode(t *testing.T, js jetstream.JetStream, id string, kind contextkit.Kind) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- fleet.Announce(ctx, js, fleet.Node{ID: id, Kind: kind, Endpoint: "127.0.0.1:1"},
			func(context.Context, *fleet.Node) error { return nil })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// announceOnce announces a node once, like a node that dies then.
func announceOnce(t *testing.T, js jetstream.JetStream, id string, kind contextkit.Kind) {
	t.Helper()
	bucket, err := js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(fleet.Node{
		ID:       id,
		Kind:     kind,
		Endpoint: "127.0.0.1:1",
		Ready:    true,
	})
	if err == nil {
		_, err = bucket.Put(t.Context(), id, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f *followed) until(t *testing.T, id, want string) {
	t.Helper()
	natstest.Eventually(t, id+" is "+want, func() bool { return f.state(id) == want })
}

// While no node announces itself, silence proves nothing: NATS may be away, or may store nothing.
func TestFollowNodes_SilenceOfAllRemovesNone(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	f := follow(t, js)
	announceOnce(t, js, "p1", contextkit.KindProjection)
	f.until(t, "p1", "silent")
	for before := f.times(); f.times() < before+3; {
		if state := f.state("p1"); state != "silent" {
			t.Fatalf("state %q", state)
		}
	}
}

// The follower's verdict decides on a silent node while others announce themselves: a node that
// answers stays; a node that does not answer, or was not asked, is lost.
func TestFollowNodes_TheVerdictDecidesOnASilentNode(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	f := follow(t, js)
	f.set("answers", fleet.Answers)
	f.set("gone", fleet.Gone)
	announceNode(t, js, "speaker", contextkit.KindGateway)
	for _, id := range []string{"answers", "gone", "unknown"} {
		announceOnce(t, js, id, contextkit.KindProjection)
	}
	f.until(t, "gone", "lost")
	f.until(t, "unknown", "lost")
	if state := f.state("answers"); state != "silent" {
		t.Errorf("state of a responding node: %q", state)
	}
	f.set("answers", fleet.Gone)
	f.until(t, "answers", "lost")
	announceOnce(t, js, "gone", contextkit.KindProjection)
	f.until(t, "gone", "announced")
}

// A new node takes the place of the first lost one of its kind, as in a deployment that gives
// every process a new name.
func TestFollowNodes_ANewNodeReplacesALostOne(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	f := follow(t, js)
	announceNode(t, js, "speaker", contextkit.KindGateway)
	f.until(t, "speaker", "announced")
	announceOnce(t, js, "p1", contextkit.KindProjection)
	f.until(t, "p1", "lost")
	announceNode(t, js, "r1", contextkit.KindRunner)
	f.until(t, "r1", "announced")
	if state := f.state("p1"); state != "lost" {
		t.Errorf("state after a node of another kind: %q", state)
	}
	announceNode(t, js, "p2", contextkit.KindProjection)
	f.until(t, "p2", "announced")
	if state := f.state("p1"); state != "" {
		t.Errorf("state after a node of its kind: %q", state)
	}
}

// A bucket that stores nothing, as one whose disk is full, does not silence the nodes.
func TestFollowNodes_ReceivesAnnouncementsThatAreNotStored(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	f := follow(t, js)
	stream, err := js.Stream(t.Context(), "KV_"+streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgSize = 1
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	announceNode(t, js, "p1", contextkit.KindProjection)
	f.until(t, "p1", "announced")
	f.set("ghost", fleet.Unknown)
	for before := f.times(); f.times() < before+1; { // a ghost that is published once becomes silent
		if f.state("ghost") == "" {
			if err := js.Conn().Publish(
				"$KV."+streams.BucketNodes+".ghost", []byte(`{"id":"ghost","kind":"runner","endpoint":"x:1"}`),
			); err != nil {
				t.Fatal(err)
			}
			f.until(t, "ghost", "announced")
		}
	}
	if state := f.state("p1"); state != "announced" {
		t.Errorf("state after the maximum silence: %q", state)
	}
}

// That a node's key has expired is no deregistration: while nothing is stored, all keys expire.
func TestFollowNodes_AnExpiredKeyIsNoDeregistration(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	f := follow(t, js)
	f.set("p1", fleet.Answers)
	announceNode(t, js, "speaker", contextkit.KindGateway)
	announceOnce(t, js, "p1", contextkit.KindProjection)
	f.until(t, "p1", "announced")
	stream, err := js.Stream(t.Context(), "KV_"+streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV."+streams.BucketNodes+".p1")); err != nil {
		t.Fatal(err)
	}
	f.until(t, "p1", "silent")
	for before := f.times(); f.times() < before+2; {
		if state := f.state("p1"); state != "silent" {
			t.Fatalf("state %q", state)
		}
	}
	bucket, err := js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(t.Context(), "p1"); err != nil {
		t.Fatal(err)
	}
	f.until(t, "p1", "") // that is one
}

// An outage of NATS removes no node that answers, and none is lost when NATS is back, whichever
// announcement arrives first.
func TestFollowNodes_NodesStayWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	options := server.Options{StoreDir: t.TempDir()}
	bus := natstest.Server(t, &options)
	js := natstest.Connect(t, bus)
	f := follow(t, js)
	nodes := []string{"p1", "p2", "p3"}
	for _, id := range nodes {
		announceNode(t, js, id, contextkit.KindProjection)
		f.until(t, id, "announced")
	}
	f.set("p3", fleet.Gone)
	options.Port = bus.Addr().(*net.TCPAddr).Port
	bus.Shutdown()
	bus.WaitForShutdown()
	f.until(t, "p1", "silent")
	f.until(t, "p2", "silent")
	f.until(t, "p3", "lost") // it died during the outage, by the follower's verdict
	natstest.Server(t, &options)
	f.set("p3", fleet.Unknown)
	for _, id := range nodes {
		for f.state(id) != "announced" {
			for _, other := range nodes[:2] {
				if f.state(other) == "lost" {
					t.Fatalf("%s is lost", other)
				}
			}
		}
	}
}
