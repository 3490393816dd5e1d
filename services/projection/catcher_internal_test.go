package projection

import (
	"context"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/headgate/headgate/backbone/tail"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
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

// apartFixture is the journal and the database of followers of acme.
type apartFixture struct {
	js      jetstream.JetStream
	journal *backbone.Journal
	tail    *tail.Tail
	tenant  contextkit.TenantID
	model   *model.Model
	rows    store.Store
	ctx     context.Context //nolint:containedctx // acme's, with the bound of the test
}

func newApartFixture(t *testing.T) *apartFixture {
	t.Helper()
	a := &apartFixture{js: backbonetest.Start(t), tenant: backbonetest.Tenant(t, "acme")}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	a.ctx = contextkit.TenantContext(ctx, a.tenant)
	var err error
	if a.model, err = model.Parse("sums.yaml", []byte(sums)); err != nil {
		t.Fatal(err)
	}
	if a.journal, err = backbone.OpenJournal(ctx, a.js); err != nil {
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

// node returns a follower of a node that is not told of skips.
func (a *apartFixture) node(rows store.Store) *follower {
	f := newFollower(a.tenant, a.tail, a.model, rows, "one", a.journal.Epoch(), zerolog.Nop())
	f.skips = newSkipRecords(a.js)
	return f
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
	a := newApartFixture(t)
	rows := lingering{a.rows, make(chan struct{}, 1)}
	f := a.node(rows)
	f.mu.Lock()
	c := f.catch(0)
	f.mu.Unlock()
	backbonetest.Await(t, rows.entered, "the cursor is read")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.stop()
	}()
	backbonetest.Await(t, stopped, "the catcher stops")
}
