package idempotency

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
)

var wallet = func() Key {
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		panic(err)
	}
	return Key{Tenant: tenant, Type: "wallet", ID: "w"}
}()

// memory is a store in memory. It acknowledges a write when acknowledge is called.
type memory struct {
	records map[string][]byte
	reads   int
	down    bool // Put fails
	sent    []*future
}

func newMemory() *memory { return &memory{records: map[string][]byte{}} }

// future implements [jetstream.PubAckFuture].
type future struct {
	name   string
	record []byte
	ok     chan *jetstream.PubAck
	failed chan error
}

func (f *future) Ok() <-chan *jetstream.PubAck { return f.ok }
func (f *future) Err() <-chan error            { return f.failed }
func (f *future) Msg() *nats.Msg               { return nil }

func (m *memory) Put(_ context.Context, name string, record []byte) (jetstream.PubAckFuture, error) {
	if m.down {
		return nil, errors.New("the store is down")
	}
	f := &future{name, record, make(chan *jetstream.PubAck, 1), make(chan error, 1)}
	m.sent = append(m.sent, f)
	return f, nil
}

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.reads++
	return m.records[name], nil
}

// acknowledge stores and acknowledges what was sent.
func (m *memory) acknowledge() {
	for _, f := range m.sent {
		m.records[f.name] = f.record
		f.ok <- &jetstream.PubAck{}
	}
	m.sent = nil
}

// lose fails what was sent.
func (m *memory) lose() {
	for _, f := range m.sent {
		f.failed <- errors.New("lost")
	}
	m.sent = nil
}

func newLogs(t testing.TB, store Store) *Logs {
	t.Helper()
	return NewLogs(store, 1<<20)
}

// event returns the event of today's command n.
func event(n int) journal.Event {
	return journal.Event{
		Sequence: uint64(10 * (n + 1)),
		Time:     time.Now(),
		Command:  journal.CommandRef{IdempotencyKey: fmt.Sprintf("key-%d", n), Fingerprint: "f"},
	}
}

// recordAll records the commands from first on, below end.
func recordAll(l *Log, first, end int) {
	for n := first; n < end; n++ {
		l.Record(event(n))
	}
}

// flush records commands and acknowledges all writes.
func flush(t *testing.T, l *Log, m *memory) {
	t.Helper()
	for range 3 { // full blocks, then their index
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = l.Flush(ctx)
		m.acknowledge()
	}
	if err := l.Flush(t.Context()); err != nil || l.Pending() != 0 {
		t.Fatalf("%d records are pending: %v", l.Pending(), err)
	}
}
