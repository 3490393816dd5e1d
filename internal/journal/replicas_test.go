package journal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// natsCluster starts three NATS servers that are one cluster.
func natsCluster(t *testing.T) []*server.Server {
	t.Helper()
	var (
		servers []*server.Server
		routes  []*url.URL
		ports   []int
	)
	for range 3 {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: listener.Addr().String()})
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n, port := range ports {
		servers = append(servers, natstest.Server(t, &server.Options{
			ServerName: fmt.Sprintf(
				"n%d",
				n,
			),
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:  routes,
		}))
	}
	return servers
}

func TestReplicas_OneOfThreeServersLosesNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("three servers, half a minute")
	}
	for _, stream := range []string{streams.Events, streams.Timeline} {
		t.Run("the leader "+stream, func(t *testing.T) { nothingIsLostWithTheLeaderOf(t, stream) })
	}
}

func nothingIsLostWithTheLeaderOf(t *testing.T, name string) {
	servers := natsCluster(t)
	js := natstest.Connect(t, servers...)
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), 2*time.Minute)
	defer cancel()
	eventLog, err := journal.Open(ctx, js, journal.GroupCommit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	tenant := contextkit.TenantContext(ctx, acme)
	stream, err := js.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	leader := stream.CachedInfo().Cluster.Leader

	// Each wallet is written by one writer, who folds what is not known to stand.
	wallets, events := 64, 60
	if testing.Short() {
		wallets = 16
	}
	var all sync.WaitGroup
	began := make(chan struct{}, wallets)
	for n := range wallets {
		all.Go(func() {
			id := fmt.Sprintf("w%d", n)
			notified := false
			for version, last := 1, uint64(0); version <= events; {
				if version > events/3 && !notified {
					notified = true
					began <- struct{}{}
				}
				next := eventsOf(id, version, 1+version%3)
				attempt, cancel := context.WithTimeout(tenant, 5*time.Second)
				err := eventLog.Append(attempt, acme, last, next)
				cancel()
				if err == nil {
					version, last = version+len(next), next[len(next)-1].Sequence
					continue
				}
				if ctx.Err() != nil {
					t.Error(err)
					return
				}
				// Whether it stands is not known: as a command's node does, it is read.
				known := int64(version - 1)
				if err := eventLog.Load(tenant, acme, "wallet", id, last+1, 0, func(e journal.Event) error {
					if e.Version != known+1 {
						return fmt.Errorf("%w: version %d after %d", errGap, e.Version, known)
					}
					known, last = e.Version, e.Sequence
					return nil
				}); errors.Is(err, errGap) {
					t.Error(err)
					return
				}
				version = int(known) + 1
			}
		})
	}
	for range wallets / 2 {
		natstest.Await(t, began, "half of the clients have started")
	}
	for _, s := range servers {
		if s.Name() == leader {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	all.Wait()
	for n := range wallets {
		id := fmt.Sprintf("w%d", n)
		var got []journal.Event
		for err := errors.New("not read"); err != nil ||
			len(got) < events; { // the client may reconnect, and a replica be behind
			got = nil
			err = eventLog.Load(tenant, acme, "wallet", id, 1, 0, func(e journal.Event) error {
				got = append(got, e)
				return nil
			})
			if ctx.Err() != nil {
				t.Fatalf("%s has %d events, want %d: %v", id, len(got), events, err)
			}
		}
		for i, e := range got {
			if e.Version != int64(i+1) {
				t.Fatalf("%s: event %d has version %d", id, i+1, e.Version)
			}
		}
	}
	// A node that starts now can.
	if err := setup.Ensure(ctx, js, 3); err != nil {
		t.Fatal(err)
	}
	bucket := natstest.Tenants(t, js)
	if _, err := bucket.Put(ctx, "acme", fleet.Tenant{Reason: "kept"}, 0); err != nil {
		t.Fatal(err)
	}
	if kept, err := bucket.Get(ctx, "acme"); err != nil || kept.Value.Reason != "kept" {
		t.Errorf("read after put: %+v, %v", kept, err)
	}
	if name == streams.Events {
		confirmNeedsAMajority(tenant, t, eventLog, js, servers)
	}
}

// confirmNeedsAMajority shuts one of the two remaining servers down, which does not lead the journal.
func confirmNeedsAMajority(
	ctx context.Context, t *testing.T, eventLog *journal.Journal, js jetstream.JetStream, servers []*server.Server,
) {
	t.Helper()
	if err := eventLog.Confirm(ctx); err != nil {
		t.Errorf("leader of two of three servers: %v", err)
	}
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.Running() && s.Name() != stream.CachedInfo().Cluster.Leader {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	natstest.Eventually(t, "one of three servers does not confirm", func() bool {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return eventLog.Confirm(attempt) != nil
	})
}

var errGap = errors.New("a gap")

// eventsOf is events without a key.
func eventsOf(id string, first, n int) []journal.Event { return natstest.Events(id, first, n, "") }
