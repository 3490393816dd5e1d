package projection_test

import (
	"context"
	"maps"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// disk is the disk of a NATS server at a fixed port. It can be reset to an earlier state.
type disk struct {
	dir    string
	port   int
	server *natsserver.Server
}

func newDisk(t *testing.T) *disk {
	d := &disk{dir: t.TempDir(), port: natsserver.RANDOM_PORT}
	d.start(t)
	d.port = natstest.Port(t, d.server)
	return d
}

func (d *disk) start(t *testing.T) {
	d.server = natstest.Server(t, &natsserver.Options{StoreDir: d.dir, Port: d.port})
}

func (d *disk) stop() {
	d.server.Shutdown()
	d.server.WaitForShutdown()
}

func (d *disk) copy(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// regrow appends one event of globex and then events of acme while no node uses the journal.
func (d *disk) regrow(t *testing.T, events int) {
	t.Helper()
	temporary := &disk{dir: d.dir, port: natsserver.RANDOM_PORT}
	temporary.start(t)
	defer temporary.stop()
	js := natstest.Connect(t, temporary.server)
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		journal:  journal,
		last:     map[string]uint64{},
		versions: map[string]int64{},
		sequence: map[string]uint64{},
	}
	f.append(t, "globex", "other", "opened", `{"owner":"gus"}`)
	for range events {
		f.append(t, "acme", "other", "opened", `{"owner":"oda"}`)
	}
	js.Conn().Close()
}

// integrity runs a service's check of the journal until the test or the fixture ends.
func (f *fixture) integrity(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(context.Background()))
	done := make(chan error, 1)
	go func() { done <- f.service.Integrity().Run(ctx, false, zerolog.Nop()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A journal that went back, for example because the volume of NATS was restored from a snapshot, is damaged: views
// retain their rows, and no event is applied to them, until an operator accepts the loss.
func TestJournal_RestoredJournalLeavesRowsUnchanged(t *testing.T) {
	const filled, all = "w0=1 w1=101 w2=201 w3=1 w4=101", "w0=8 w1=101 w2=201 w3=1 w4=101 w5=0"
	for name, test := range map[string]struct {
		regrown  int  // events that are appended after it went back
		running  bool // the node runs in the meantime
		accepted string
	}{
		"shorter, before the start":            {regrown: 0, accepted: filled},
		"different event, before the start":    {regrown: 1, accepted: "other=0 " + filled},
		"longer, before the start":             {regrown: 3, accepted: "other=0 " + filled},
		"shorter, while the node runs":         {regrown: 0, running: true, accepted: filled},
		"different event, while the node runs": {regrown: 1, running: true, accepted: "other=0 " + filled},
		"longer, while the node runs":          {regrown: 3, running: true, accepted: "other=0 " + filled},
	} {
		if testing.Short() && (!test.running || test.regrown == 1) {
			continue // the same code runs
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := overBoth
			if test.running { // the tail detects it, with any store
				over = func(t *testing.T, test func(*testing.T, func(*testing.T) store.Opener)) {
					t.Helper()
					test(t, func(t *testing.T) store.Opener { return sqlite.In(t.TempDir()) })
				}
			}
			over(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
				d, saved, open := newDisk(t), t.TempDir(), newStore(t)
				js := natstest.Connect(t, d.server)
				f := start(t, js, open, model.Wallet)
				f.fill(t)
				f.wants(t, filled)
				last, versions, sequence := maps.Clone(f.last), maps.Clone(f.versions), maps.Clone(f.sequence)
				if !test.running {
					f.stop()
				}
				d.stop()
				d.copy(t, d.dir, saved)
				d.start(t)
				if !test.running {
					f = start(t, natstest.Connect(t, d.server), open, model.Wallet)
					f.last, f.versions, f.sequence = maps.Clone(last), maps.Clone(versions), maps.Clone(sequence)
				}
				until(t, "NATS is connected", f.js.Conn().IsConnected)
				f.append(t, "acme", "w0", "deposited", `{"amount":7,"reference":""}`)
				f.append(t, "acme", "w5", "opened", `{"owner":"zoe"}`)
				f.wants(t, all)
				watcher := f.watch(t, &projectionv1.WatchRequest{})
				watcher.until(t, all)
				watcher.close()
				if !test.running {
					f.stop()
				}
				d.stop()
				d.copy(t, saved, d.dir)
				if test.regrown > 0 {
					d.regrow(t, test.regrown)
				}
				d.start(t)
				before := f
				if !test.running {
					f = start(t, natstest.Connect(t, d.server), open, model.Wallet)
				}
				f.integrity(t)
				within(t, "the damage is reported", func() bool {
					damage := f.service.Integrity().Damage()
					return damage != nil && damage.End != nil
				})
				f.last, f.versions, f.sequence = before.last, before.versions, before.sequence
				f.wants(t, all) // with the position of an event that was lost
				if err := f.service.Ready(t.Context(), natstest.Tenant(t, "acme")); err != nil {
					t.Errorf("the node is not ready: %v", err)
				}
				if !strings.Contains(f.service.Integrity().Degraded()[journal.DegradedJournal], "its end is missing") {
					t.Errorf("degraded: %v", f.service.Integrity().Degraded())
				}

				if _, err := journal.AcceptLoss(
					contextkit.PlatformContext(t.Context()), f.js, "operator", "the volume was restored",
				); err != nil {
					t.Fatal(err)
				}
				f.rebuilt(t, last, versions, test.accepted)
				again := f.watch(t, &projectionv1.WatchRequest{After: watcher.position})
				defer again.close()
				again.until(t, test.accepted)
				if again.resets != 1 {
					t.Errorf("watcher resuming with a position of the lost journal: %d resets, want 1",
						again.resets)
				}
			})
		})
	}
}

// rebuilt waits until the views are as wanted, after a loss was accepted.
func (f *fixture) rebuilt(t *testing.T, last map[string]uint64, versions map[string]int64, want string) {
	t.Helper()
	f.last, f.versions, f.sequence = last, versions, map[string]uint64{}
	within(t, "the views are rebuilt: "+want, func() bool {
		res, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets"})
		return err == nil && balancesOf(res) == want
	})
}

// After an operator has accepted a loss, the rows of the lost journal are shown until the views are rebuilt. Their
// sequences belong to the lost journal: they must not satisfy a read with the position of a new command, and no
// position that such a read returns is valid after the rebuild.
func TestJournal_LostPositionsAreInvalidAfterRebuild(t *testing.T) {
	overBoth(t, journalLostPositionsAreInvalidAfterRebuild)
}

func journalLostPositionsAreInvalidAfterRebuild(t *testing.T, newStore func(t *testing.T) store.Opener) {
	const filled = "w0=1 w1=101 w2=201 w3=1 w4=101"
	d, saved, open := newDisk(t), t.TempDir(), newStore(t)
	f := start(t, natstest.Connect(t, d.server), open, model.Wallet)
	f.fill(t)
	f.wants(t, filled)
	f.stop()
	d.stop()
	d.copy(t, d.dir, saved)
	d.start(t)
	f = start(t, natstest.Connect(t, d.server), open, model.Wallet)
	for range 5 {
		f.append(t, "acme", "lost", "opened", `{"owner":"zoe"}`)
	}
	f.wants(t, "lost=0 "+filled)
	f.stop()
	d.stop()
	d.copy(t, saved, d.dir)
	d.start(t)

	build, origins := make(chan struct{}), map[string]bool{}
	f = start(
		t, natstest.Connect(t, d.server),
		func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (store.Store, error) {
			s, err := open(ctx, tenant, views, origin)
			if origins[origin] = true; len(origins) > 1 { // of the new epoch
				return held{s, build}, err
			}
			return s, err
		}, model.Wallet,
	)
	f.integrity(t)
	within(t, "the damage is reported", func() bool { return f.service.Integrity().Damage() != nil })
	loss, err := journal.AcceptLoss(contextkit.PlatformContext(t.Context()), f.js, "operator",
		"the volume was restored")
	if err != nil {
		t.Fatal(err)
	}
	f.positions = f.positions.Of(loss.Epoch)
	f.append(t, "acme", "new", "opened", `{"owner":"eve"}`)
	within(t, "the node observes the accepted loss", func() bool { return f.service.Integrity().Appendable() == nil })

	shown, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets"})
	if got := balancesOf(shown); err != nil || got != "lost=0 "+filled {
		t.Fatalf("rows before the rebuild: %s, %v; want those of the lost journal", got, err)
	}
	for name, position := range map[string]string{
		"new command":      f.position(t, "acme"),
		"the accepted end": f.positions.Format(natstest.Tenant(t, "acme"), loss.Last),
	} {
		res, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets", MinPosition: position})
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("query with the position of %s: %s, %v; want UNAVAILABLE until the views are rebuilt", name,
				balancesOf(res), err)
		}
	}
	watcher := f.watch(t, &projectionv1.WatchRequest{})
	watcher.until(t, "lost=0 "+filled)
	watcher.close()

	close(build)
	f.wants(t, "new=0 "+filled) // with the new command's position
	if _, err := f.client.Query(
		as(t, "acme"), &projectionv1.QueryRequest{View: "wallets", MinPosition: shown.GetPosition()},
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("position in the lost journal: %v, want INVALID_ARGUMENT", err)
	}
	again := f.watch(t, &projectionv1.WatchRequest{After: watcher.position})
	defer again.close()
	again.until(t, "new=0 "+filled)
	if again.resets != 1 {
		t.Errorf("watcher with rows of the lost journal: %d resets, want 1", again.resets)
	}
}
