package postgres

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/services/projection/store"
)

// network forwards connections to a unix socket, until it drops their packets.
type network struct {
	listener net.Listener
	socket   string
	end      func() // closes all connections
	accepted chan struct{}

	mu    sync.Mutex
	conns []net.Conn
	held  chan struct{} // closed to drop the packets of existing connections; new ones have another
}

func newNetwork(t *testing.T, socket string) *network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{
		listener: listener,
		socket:   socket,
		accepted: make(chan struct{}, 64),
		held:     make(chan struct{}),
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			n.mu.Lock()
			n.conns = append(n.conns, client, server)
			held := n.held
			n.mu.Unlock()
			n.accepted <- struct{}{}
			running.Go(func() { forward(client, server, held) })
			running.Go(func() { forward(server, client, held) })
		}
	})
	n.end = sync.OnceFunc(func() {
		_ = listener.Close()
		n.mu.Lock()
		for _, conn := range n.conns {
			_ = conn.Close()
		}
		n.mu.Unlock()
		running.Wait()
	})
	t.Cleanup(n.end)
	return n
}

// forward copies until held is closed, and then drops what it reads, without closing either side.
func forward(to, from net.Conn, held <-chan struct{}) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-held:
			if err != nil {
				return
			}
			continue
		default:
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			_ = to.Close()
			return
		}
	}
}

// drop drops all further packets of the existing connections.
func (n *network) drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.held)
	n.held = make(chan struct{})
}

// lines are the lines of a log.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-t.Context().Done():
		t.Fatal("the log has no further line")
		return ""
	}
}

// A network that drops the packets of existing connections, like a firewall that has lost its state, is detected: the
// connections are replaced, and no call waits for them.
func TestDatabase_SilentlyDroppedConnectionsAreReplaced(t *testing.T) {
	_, _, at := database(t)
	where, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, filepath.Join(where.Query().Get("host"), ".s.PGSQL.5432"))
	where.Host, where.RawQuery = n.listener.Addr().String(), "sslmode=disable"
	d, err := Open(t.Context(), where.String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	defer n.end() // the driver waits for dropped connections for 15 s when they are closed
	s := open(t, d, "acme", "m@1")
	if _, err := s.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	for len(n.accepted) > 0 {
		<-n.accepted
	}
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	lines := make(lines, 64)
	go func() { watched <- d.Watch(ctx, zerolog.New(lines)) }()
	defer func() {
		stop()
		if err := <-watched; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-n.accepted: // of Watch
	case <-t.Context().Done():
		t.Fatal("Watch does not connect")
	}
	// Apply waits for the database.
	applying := make(chan struct{})
	applied := make(chan error, 1)
	go func() {
		applied <- s.Apply(ctx, func(batch *store.Batch, _ store.State) error {
			close(applying)
			for {
				if _, err := batch.Row(ctx, s.views[0], "a"); err != nil {
					return err
				}
			}
		})
	}()
	<-applying
	n.drop()
	if err := <-applied; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Apply during the outage: %v, want ErrUnavailable", err)
	}
	for _, want := range []string{"PostgreSQL does not respond", "PostgreSQL responds again"} {
		for !strings.Contains(lines.next(t), want) {
		}
	}
	if _, err := s.State(t.Context()); err != nil || d.Ready() != nil {
		t.Errorf("after the outage: %v, ready: %v", err, d.Ready())
	}
}

// A transaction ends when it has waited too long for the database. Time that its reader spends between rows does not
// count.
func TestGuarded_EndsOnlyTransactionsThatWaitForDatabase(t *testing.T) {
	g := newGuarded()
	const most = 50 * time.Millisecond
	ctx, waits := g.begin(t.Context(), most)
	defer waits.end()
	reading, reads := g.begin(t.Context(), most)
	defer reads.end()
	if err := reads.using(func(_, _ []any) error {
		<-ctx.Done() // longer than the limit
		return reading.Err()
	})(nil, nil); err != nil {
		t.Errorf("a transaction with a slow reader has ended: %v", err)
	}
	if err := ended(ctx); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, errSlow) {
		t.Errorf("a transaction that waits too long: %v", err)
	}
	<-reading.Done()
	g.set(errSilent)
	after, t2 := g.begin(t.Context(), time.Hour)
	defer t2.end()
	<-after.Done()
	if err := ended(after); !errors.Is(err, errSilent) {
		t.Errorf("Guarded while the database does not answer: %v", err)
	}
	g.set(nil)
	again, t3 := g.begin(t.Context(), time.Hour)
	if again.Err() != nil {
		t.Errorf("once the database answers again: %v", again.Err())
	}
	if t3.end(); ended(again) != nil {
		t.Errorf("a transaction that has ended: %v", ended(again))
	}
}

func TestOpen_NewerFormatIsRejected(t *testing.T) {
	d, _, at := database(t)
	open(t, d, "acme", "m@1")
	found, err := readFormat(t.Context(), d.pool)
	if err != nil || found.Format != databaseFormat || found.Writer == "" {
		t.Fatalf("format record %+v (%v)", found, err)
	}
	set := func(version, floor int) {
		t.Helper()
		if _, err := d.pool.Exec(
			t.Context(), `UPDATE headgate.format SET version = $1, floor = $2, writer = 'v9'`, version, floor,
		); err != nil {
			t.Fatal(err)
		}
	}
	set(databaseFormat.Version+2, databaseFormat.Version) // newer, and this program can use it
	later, err := Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	open(t, later, "acme", "m@2")
	if found, err := readFormat(t.Context(), d.pool); err != nil || found.Version != databaseFormat.Version+2 ||
		found.Writer != "v9" {
		t.Errorf("format record after a rejected open: %+v (%v)", found, err)
	}
	set(databaseFormat.Version+2, databaseFormat.Version+1)
	var newer *format.NewerError
	if _, err := Open(t.Context(), at); !errors.As(err, &newer) ||
		!strings.Contains(err.Error(), "the PostgreSQL database") || !strings.Contains(err.Error(), "v9") {
		t.Errorf("open of newer data: %v", err)
	}
	// A process that was already connected is rejected too.
	if _, err := later.Views(t.Context(), natstest.Tenant(t, "acme"), notes(t), "m@3"); !errors.As(err, &newer) {
		t.Errorf("a further generation of newer data: %v", err)
	}
}

func TestCheckpoints_ReturnsRequestedTenantsAndOrigins(t *testing.T) {
	d, _, at := database(t)
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	for n, origin := range []string{"m@1", "m@2"} {
		for m, tenant := range []string{"acme", "globex"} {
			s := open(t, d, tenant, origin)
			if err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
				batch.Advance(store.Checkpoint{Sequence: uint64(10*n + m + 1), EventID: "e"})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := d.pool.Exec(t.Context(), `INSERT INTO headgate.generations (name) VALUES ('views_old')`); err != nil {
		t.Fatal(err)
	}
	tenants := []contextkit.TenantID{acme, globex, natstest.Tenant(t, "initech")}
	found, unknown, err := Checkpoints(t.Context(), at, tenants, func(origin string) bool { return origin == "m@2" })
	if err != nil || len(unknown) != 1 || unknown[0] != "views_old" {
		t.Fatalf("checkpoints of unknown tenants: %v (%v)", unknown, err)
	}
	if len(found) != 2 || found[0].Tenant != acme || found[0].Checkpoint != 11 || found[1].Tenant != globex ||
		found[1].Checkpoint != 12 {
		t.Errorf("checkpoints %+v", found)
	}
}
