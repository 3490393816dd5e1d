package backup_test

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// servers starts three NATS servers that are one cluster.
func servers(t *testing.T) []*server.Server {
	t.Helper()
	var (
		out    []*server.Server
		routes []*url.URL
		ports  []int
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
		out = append(out, natstest.Server(t, &server.Options{
			ServerName: fmt.Sprintf("n%d", n), Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes: routes,
		}))
	}
	return out
}

// The backup is taken from a cluster too.
func TestRestore_ToAClusterHasAReplicaOnEachServer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip(
			"NATS gives a restore up after five seconds without a chunk, which six servers under the race detector " +
				"may take",
		)
	}
	from := natstest.Connect(t, servers(t)...)
	appendEvents(t, from, "a", 0, 1, 50)
	put(t, from, streams.BucketTenants, "acme", `{}`)
	if _, err := from.CreateOrUpdateConsumer(t.Context(), streams.Events, jetstream.ConsumerConfig{
		Durable:        streams.RunnerConsumer("acme"),
		FilterSubjects: []string{"events.acme.note.*"},
		AckPolicy:      jetstream.AckExplicitPolicy,
		MaxDeliver:     -1,
	}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), from, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	to := natstest.Connect(t, servers(t)...) // whose streams are replaced
	report, err := backup.Restore(t.Context(), to, dir, backup.Target{Replicas: 3, Replace: true}, backup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Events != 50 {
		t.Errorf("Restore reports %+v", report)
	}
	if err := setup.Ensure(t.Context(), to, 3); err != nil {
		t.Fatal(err)
	}
	stream, err := to.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	if info := stream.CachedInfo(); info.Config.Replicas != 3 || len(info.Cluster.Replicas) != 2 {
		t.Errorf("the journal has %d replicas: %+v", info.Config.Replicas, info.Cluster)
	}
	if last := appendEvents(t, to, "a", 50, 51, 1); last != 51 {
		t.Errorf("sequence of the next event: %d, want 51", last)
	}
}
