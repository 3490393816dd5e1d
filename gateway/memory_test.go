package gateway_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

const (
	// memoryShare bounds the memory of one tenant's messages.
	memoryShare = 8 << 20
	// unreadCalls is the number of calls of an attack that requests large answers and does not read.
	unreadCalls = 120
)

func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // buffers in pools outlive one
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A client that does not read its answers, which the gateway then buffers, occupies its
// own tenant's share of the memory: its further calls are refused, and the other tenants
// lose none, also at the node that answers both.
func TestAnswers_UnreadOnesDoNotAffectOtherTenants(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory, for a minute under the race detector; other tests run the same code there")
	}
	everyUpstream(t, func(t *testing.T, start starter) {
		for name, url := range map[string]func(*edge) string{
			"main port": func(e *edge) string { return e.url },
			"gRPC port": func(e *edge) string { return e.grpc },
		} {
			t.Run(name, func(t *testing.T) {
				e := start(func(c *gateway.Config) {
					c.MaxBytes, c.TenantShare = 4*memoryShare, 0.25
					// An answer that waits until its call's deadline, or is cut off, would release memory to a
					// further call.
					c.MaxTimeout, c.Listen.WriteTimeout = 5*time.Minute, 5*time.Minute
				}, nil)
				losesNothing(t, e, "before the attack")
				before := heapInUse()
				unread(t, url(e), e.token(t, "acme", "query.read"), unreadCalls)
				losesNothing(t, e, "during the attack")
				// This includes the memory of the node and of the client's sockets. Without a bound
				// it is that of all answers: 120 MiB.
				if grown := heapInUse() - before; grown > 10*memoryShare {
					t.Errorf("%d calls of %d bytes each use %d MiB of memory", unreadCalls, largeBytes, grown>>20)
				}
			})
		}
	})
}

// unread makes the calls on one connection whose windows it never opens, and returns when all are
// rejected except the ones that the tenant's share permits.
func unread(t *testing.T, url, token string, calls int) {
	t.Helper()
	r := connectRaw(t, url)
	wire, err := proto.Marshal(&projectionv1.QueryRequest{View: largeView})
	if err != nil {
		t.Fatal(err)
	}
	message := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(wire))),
		wire...)
	refused := make(chan struct{}, calls)
	var (
		reading sync.WaitGroup
		mu      sync.Mutex
		others  []string // statuses of calls that ended in another way
	)
	reading.Go(func() {
		for {
			f, err := r.framer.ReadFrame()
			if err != nil {
				return
			}
			headers, ok := f.(*http2.MetaHeadersFrame)
			if !ok || !headers.StreamEnded() {
				continue
			}
			for _, field := range headers.Fields {
				switch {
				case field.Name == "grpc-status" && field.Value == "8": // RESOURCE_EXHAUSTED
					refused <- struct{}{}
				case field.Name == "grpc-status" || field.Name == "grpc-message":
					mu.Lock()
					others = append(others, field.Value)
					mu.Unlock()
				}
			}
		}
	})
	t.Cleanup(func() { r.conn.Close(); reading.Wait() })
	for n := range calls {
		id := uint32(2*n + 1)
		if err := r.open(id, token, "grpc-timeout", "300S"); err != nil {
			t.Fatal(err)
		}
		if err := r.framer.WriteData(id, true, message); err != nil {
			t.Fatal(err)
		}
	}
	want := calls - memoryShare/largeBytes
	for n := range want {
		select {
		case <-refused:
		case <-time.After(30 * time.Second):
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("%d of %d calls rejected, want at least %d; others ended with %q", n, calls, want, others)
		}
	}
}
