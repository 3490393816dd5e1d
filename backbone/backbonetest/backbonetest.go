// Package backbonetest starts the real backbone for tests: an embedded NATS
// server over a temporary directory, with every stream and bucket in place.
package backbonetest

import (
	"fmt"
	"os"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
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
	return start(t, backbone.EmbeddedConfig{Dir: t.TempDir()})
}

// StartIn is Start over a directory that the test keeps.
func StartIn(t testing.TB, dir string) jetstream.JetStream {
	t.Helper()
	return start(t, backbone.EmbeddedConfig{Dir: dir, LazySync: true})
}

func start(t testing.TB, config backbone.EmbeddedConfig) jetstream.JetStream {
	t.Helper()
	embedded, err := backbone.StartEmbedded(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	conn, err := embedded.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := backbone.EnsureStreams(t.Context(), js, 1); err != nil {
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

// Main runs a package's tests and fails them for goroutines left behind, the
// embedded server's own but for those that it never ends left out.
// cleanups run after the tests and before goroutines are counted.
func Main(m *testing.M, cleanups ...func() error) {
	goleak.VerifyTestMain(tests{m, cleanups},
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"), // its clock
	)
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
