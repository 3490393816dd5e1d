package projection

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// sums is a model with a view that cannot apply an integer price.
const sums = `model: sums
aggregates:
  wallet:
    commands: {place: {emit: [{event: placed, data: {price: cmd.price}}]}}
    evolve: {placed: {}}
views:
  totals:
    key: "'all'"
    columns: {total: double}
    on: {wallet.placed: {upsert: {total: "has(row.total) ? row.total + event.price : event.price"}}}
`

// detachedFixture is the journal and the database of followers of acme.
type detachedFixture struct {
	js      jetstream.JetStream
	journal *journal.Journal
	tail    *tail.Tail
	tenant  contextkit.TenantID
	model   *model.Model
	rows    store.Store
	ctx     context.Context // acme's, with the deadline of the test
	last    journal.Event
}

func newDetachedFixture(t *testing.T) *detachedFixture {
	t.Helper()
	a := &detachedFixture{js: natstest.Start(t), tenant: natstest.Tenant(t, "acme")}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	a.ctx = contextkit.TenantContext(ctx, a.tenant)
	var err error
	if a.model, err = model.Parse("sums.yaml", []byte(sums)); err != nil {
		t.Fatal(err)
	}
	if a.journal, err = journal.Open(ctx, a.js); err != nil {
		t.Fatal(err)
	}
	if a.rows, err = sqlite.In(t.TempDir())(ctx, a.tenant, a.model.Views(), "one"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.rows.Close(); err != nil {
			t.Error(err)
		}
	})
	a.tail = tail.New(a.js, a.journal, tail.Config{Name: "apart", Log: zerolog.Nop()})
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.tail.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

// place appends an order with a price.
func (a *detachedFixture) place(t *testing.T, price string) journal.Event {
	t.Helper()
	events := []journal.Event{{
		ID: contextkit.NewID(), Type: "placed", AggregateType: "wallet", AggregateID: "w", Version: a.last.Version + 1,
		Time: time.Unix(1_800_000_000, 0), Data: []byte(`{"price":` + price + `}`),
	}}
	if err := a.journal.Append(a.ctx, a.tenant, a.last.Sequence, events); err != nil {
		t.Fatal(err)
	}
	a.last = events[0]
	return events[0]
}

// node returns a follower of a node that does not receive skips.
func (a *detachedFixture) node(rows store.Store) *follower {
	f := newFollower(a.tenant, a.tail, a.model, rows, "one", a.journal.Epoch(), zerolog.Nop())
	f.hub.node = &pendingKeys{}
	f.skips = newSkipRecords(a.js)
	return f
}

// start delivers events to a follower until the test ends.
func (a *detachedFixture) start(t *testing.T, f *follower) {
	t.Helper()
	f.subscription.Store(a.tail.Subscribe(a.tenant, f, tail.Options{}))
	t.Cleanup(f.stopped)
}

// A node whose view fails resumes the view when another node of its database has followed the skip and stopped, even
// if no announcement of the skip reaches it.
func TestCatcher_FollowsSkipOfAnotherNode(t *testing.T) {
	a := newDetachedFixture(t)
	f := a.node(a.rows)
	a.place(t, "1.5")
	poison := a.place(t, "2")
	a.start(t, f)
	p := f.part("totals")
	rests := func() bool { // its catcher has tried the event too
		f.mu.Lock()
		c := p.catcher
		f.mu.Unlock()
		f.applying.Lock()
		defer f.applying.Unlock()
		return c != nil && c.tried
	}
	for !rests() {
		select {
		case <-time.After(time.Millisecond):
		case <-a.ctx.Done():
			t.Fatal("the view does not fail")
		}
	}
	bucket, err := kv.Open[skips.Skip](a.ctx, a.js, streams.BucketSkips)
	if err != nil {
		t.Fatal(err)
	}
	record := skips.Skip{
		Tenant:      "acme",
		View:        "totals",
		Fingerprint: p.view.Fingerprint(),
		EventID:     poison.ID,
		Sequence:    poison.Sequence,
	}
	if _, err := bucket.Put(a.ctx, record.Key(), record, 0); err != nil {
		t.Fatal(err)
	}
	other := a.node(a.rows)
	if err := other.skips.refresh(a.ctx, a.tenant); err != nil {
		t.Fatal(err)
	}
	if state, err := other.aligned(a.ctx); err != nil || state.View("totals").Failure != "" ||
		state.View("totals").Skips == 0 {
		t.Fatalf("%+v, %v: the other node follows the skip", state, err)
	}
	last := a.place(t, "2.5")
	if err := f.wait(a.ctx, func() bool { return !p.state.Detached && p.state.Sequence == last.Sequence }); err != nil {
		t.Errorf("the view does not resume: %v", err)
	}
}

// lingering is a store whose State returns only once its call is canceled, and then succeeds.
type lingering struct {
	store.Store

	entered chan struct{}
}

func (l lingering) State(ctx context.Context) (store.State, error) {
	l.entered <- struct{}{}
	<-ctx.Done()
	return l.Store.State(context.WithoutCancel(ctx))
}

func TestCatcher_StopsWhileItsHandlerRuns(t *testing.T) {
	a := newDetachedFixture(t)
	rows := lingering{a.rows, make(chan struct{}, 1)}
	f := a.node(rows)
	f.mu.Lock()
	c := f.catch(0)
	f.mu.Unlock()
	natstest.Await(t, rows.entered, "the cursor is read")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.stop()
	}()
	natstest.Await(t, stopped, "the catcher stops")
}

// A node that lags behind another one of its database does not overwrite the failure that the other has found.
func TestCatcher_RetainsLaterFailure(t *testing.T) {
	m, err := model.Parse("sums.yaml", []byte(sums))
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{model: m, parts: newParts(m)}
	c := &catcher{follower: f}
	failed := store.ViewState{Checkpoint: store.Checkpoint{Sequence: 10}, Detached: true, Failure: "of the event at 11"}
	state := store.State{
		Checkpoint: store.Checkpoint{Sequence: 20},
		Views:      map[string]store.ViewState{"totals": failed},
	}
	batch := store.NewBatch(nil)
	next, over, err := c.applyTo(t.Context(), batch, state, []prepared{{sequence: 4}, {sequence: 5}}, nil)
	if err != nil || over || next.View("totals") != failed || !batch.Empty() {
		t.Errorf("%+v, %v, %v", next, over, err)
	}
}
