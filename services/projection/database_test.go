package projection_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
)

// log is a log that is read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// count returns the number of lines that contain text.
func (l *log) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// until waits until condition holds.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// While PostgreSQL is stopped, or hangs without closing a connection, every read returns UNAVAILABLE with a retry
// delay, also one that is running, and the node is not ready and returns the reason. When PostgreSQL is back, the
// node resumes without a restart, and no event that was appended during the outage is missing.
func TestDatabase_OutageMakesReadsUnavailable(t *testing.T) {
	t.Parallel()
	server, err := postgrestest.Start()
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("HEADGATE_POSTGRES") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	database, err := postgres.Open(t.Context(), server.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	lines := &log{}
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan error, 1)
	go func() { watched <- database.Watch(ctx, zerolog.New(lines)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-watched; err != nil {
			t.Error(err)
		}
		database.Close()
	})
	f := startWith(t, natstest.Start(t), database.Views, model.Wallet, projection.Config{Store: database.Ready})
	f.fill(t)
	if ids, err := f.query(t, nil); err != nil || len(ids) != 5 {
		t.Fatalf("%v, %v", ids, err)
	}
	if err := f.service.Ready(t.Context(), contextkit.TenantID{}); err != nil {
		t.Fatal(err)
	}
	reads := map[string]func() error{
		"Query": func() error {
			_, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets"})
			return err
		},
		"Get": func() error {
			_, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{View: "wallets", Key: "w0"})
			return err
		},
		"Watch": func() error {
			stream, err := f.client.Watch(as(t, "acme"), &projectionv1.WatchRequest{View: "wallets"})
			if err != nil {
				return err
			}
			for {
				if _, err := stream.Receive(); err != nil {
					return err
				}
			}
		},
	}
	faults := []struct {
		name       string
		begin, end func() error
	}{{"stopped", server.Halt, server.Resume}, {"frozen", server.Freeze, server.Thaw}}
	if runtime.GOOS != "linux" {
		faults = faults[:1]
	}
	for n, fault := range faults {
		if err := fault.begin(); err != nil {
			t.Fatal(err)
		}
		underWay := make(chan error, 1)
		go func() { underWay <- reads["Get"]() }()
		until(t, "the node is not ready",
			func() bool { return f.service.Ready(t.Context(), contextkit.TenantID{}) != nil })
		if err := f.service.Ready(
			t.Context(), contextkit.TenantID{},
		); !strings.Contains(err.Error(), "PostgreSQL has not responded since 2") {
			t.Errorf("%s: reason %q", fault.name, err)
		}
		if err := <-underWay; connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: read in flight: %v, want UNAVAILABLE", fault.name, err)
		}
		for name, read := range reads {
			err := read()
			var again *errdetails.RetryInfo
			verdict, _ := errors.AsType[*connect.Error](err)
			if verdict != nil {
				for _, detail := range verdict.Details() {
					if detail.Type == "google.rpc.RetryInfo" {
						again = &errdetails.RetryInfo{}
						if err := proto.Unmarshal(detail.Value, again); err != nil {
							t.Error(err)
						}
					}
				}
			}
			if connect.CodeOf(err) != connect.CodeUnavailable || again.GetRetryDelay().AsDuration() <= 0 {
				t.Errorf("%s, %s: %v, %v; want UNAVAILABLE with RetryInfo", fault.name, name, err, again)
			}
			if err != nil && (strings.Contains(err.Error(), "/tmp") || strings.Contains(err.Error(), "dial")) {
				t.Errorf("%s, %s: the error shows internals: %v", fault.name, name, err)
			}
		}
		f.append(t, "acme", fmt.Sprintf("x%d", n), "opened", `{"owner":"zoe"}`)
		if err := fault.end(); err != nil {
			t.Fatal(err)
		}
		until(t, "the node is ready", func() bool { return f.service.Ready(t.Context(), contextkit.TenantID{}) == nil })
		until(t, "the views have applied all events", func() bool {
			ids, err := f.query(t, nil)
			return err == nil && len(ids) == 6+n
		})
	}
	if away, back := lines.count(
		"PostgreSQL does not respond",
	), lines.count("PostgreSQL responds again"); away != len(faults) || back != len(faults) {
		t.Errorf(
			"%d lines report that PostgreSQL is unreachable and %d that it is back; want one for each outage:\n%s",
			away,
			back, lines.text.String(),
		)
	}
}
