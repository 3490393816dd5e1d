// Package natstest starts NATS for tests, embedded or as servers,
// with every stream and bucket in place.
package natstest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// Start returns JetStream over a server that ends with the test. Writes are not
// synced: tests kill processes, not machines.
func Start(t testing.TB) jetstream.JetStream {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartSynced is Start with every write synced.
func StartSynced(t testing.TB) jetstream.JetStream {
	t.Helper()
	return start(t, natsserver.Config{Dir: t.TempDir()})
}

// StartIn is Start over a directory of the test.
func StartIn(t testing.TB, dir string) jetstream.JetStream {
	t.Helper()
	return start(t, natsserver.Config{Dir: dir, LazySync: true})
}

func start(t testing.TB, config natsserver.Config) jetstream.JetStream {
	t.Helper()
	embedded, err := natsserver.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	conn, err := embedded.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return open(t, conn, 1)
}

// startTimeout bounds the start of a server, and of its streams.
const startTimeout = time.Minute

// Server starts a NATS server that listens and ends with the test, if not before. The
// host, port and directory that options leave out are the test's.
func Server(t testing.TB, options *server.Options) *server.Server {
	t.Helper()
	options.Host = cmp.Or(options.Host, "127.0.0.1")
	options.Port = cmp.Or(options.Port, server.RANDOM_PORT)
	options.StoreDir = cmp.Or(options.StoreDir, t.TempDir())
	options.JetStream, options.NoSigs, options.NoLog = true, true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(startTimeout) {
		t.Fatal("NATS does not start")
	}
	return s
}

// Port returns the port on which a server listens, for another one in its place.
func Port(t testing.TB, s *server.Server) int {
	t.Helper()
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the server listens at %v", s.Addr())
	}
	return address.Port
}

// Connect returns JetStream over servers, with a replica on each of them.
func Connect(t testing.TB, servers ...*server.Server) jetstream.JetStream {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	conn, err := natsclient.Connect(strings.Join(urls, ","), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return open(t, conn, streams.Replicas(len(servers)))
}

// open puts every stream and bucket in place. The connection ends with the test.
func open(t testing.TB, conn *nats.Conn, replicas streams.Replicas) jetstream.JetStream {
	t.Helper()
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout) // servers of a cluster find each other first
	defer cancel()
	if err := setup.Ensure(ctx, js, replicas); err != nil {
		t.Fatal(err)
	}
	return js
}

// Tenant parses a tenant id.
func Tenant(t testing.TB, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Main runs a package's tests, and fails if they leak goroutines. It ignores goroutines of the
// embedded server and its client that never end. cleanups run after the tests and before goroutines
// are counted.
func Main(m *testing.M, cleanups ...func() error) {
	Parallel()
	goleak.VerifyTestMain(tests{m, cleanups},
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"), // its clock
		// nats.go's own: it never ends if the connection closes while a first asynchronous publish
		// begins, since it asks to be notified of a state that has passed.
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
	)
}

// Parallel sets the number of parallel tests that run together to [parallel], or to that of
// processors if there are more. The flag -parallel overrides it.
func Parallel() {
	if err := flag.Set("test.parallel", strconv.Itoa(max(parallel, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err) // the testing package has defined it
	}
}

// tests run a package's tests, and then its cleanups.
type tests struct {
	m        *testing.M
	cleanups []func() error
}

func (t tests) Run() int {
	code := t.m.Run()
	for _, cleanup := range t.cleanups {
		if err := cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}
