package projection_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// watcher is a client that stores what it receives.
type watcher struct {
	rows     map[string]float64 // balances by key
	position string
	resets   int
	receive  func() (*projectionv1.WatchResponse, error)
	close    func()
}

func (f *fixture) watch(t *testing.T, req *projectionv1.WatchRequest) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(as(t, "acme"), 30*time.Second)
	req.View = cmp.Or(req.GetView(), "wallets")
	stream, err := f.client.Watch(ctx, req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return &watcher{rows: map[string]float64{}, receive: stream.Receive, close: func() {
		cancel()
		_ = stream.Close()
	}}
}

// until receives messages until the client's rows are as wanted.
func (w *watcher) until(t *testing.T, want string) {
	t.Helper()
	for {
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(w.rows)) {
			parts = append(parts, fmt.Sprintf("%s=%v", key, w.rows[key]))
		}
		if got := strings.Join(parts, " "); got == want && w.position != "" {
			return
		}
		message, err := w.receive()
		if err != nil {
			t.Fatalf("rows of the client: %v, want %s: %v", parts, want, err)
		}
		if message.GetReset_() {
			clear(w.rows)
			w.resets++
		}
		for _, change := range message.GetChanges() {
			if change.GetRow() == nil {
				delete(w.rows, change.GetKey())
				continue
			}
			balance, _ := change.GetRow().AsMap()["balance"].(float64)
			w.rows[change.GetKey()] = balance
		}
		if message.GetPosition() != "" {
			w.position = message.GetPosition()
		}
	}
}

func TestWatch_SendsCurrentRowsAndChanges(t *testing.T) { overBoth(t, watchSendsCurrentRowsAndChanges) }

func watchSendsCurrentRowsAndChanges(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	all := f.watch(t, &projectionv1.WatchRequest{MinPosition: f.position(t, "acme")})
	all.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")
	rich := f.watch(t, &projectionv1.WatchRequest{Filter: "balance > 100", MinPosition: f.position(t, "acme")})
	rich.until(t, "w1=101 w2=201 w4=101")

	f.append(t, "acme", "w0", "deposited", `{"amount":500,"reference":""}`)
	f.append(t, "globex", "secret", "deposited", `{"amount":7,"reference":""}`)
	f.append(t, "acme", "w1", "withdrawn", `{"amount":100,"reference":""}`)
	f.append(t, "acme", "w9", "opened", `{"owner":"new"}`)
	all.until(t, "w0=501 w1=1 w2=201 w3=1 w4=101 w9=0")
	rich.until(t, "w0=501 w2=201 w4=101") // w1 no longer matches

	// A client that resumes receives what it missed, and not all rows again.
	rich.close()
	seen := rich.position
	f.append(t, "acme", "w2", "withdrawn", `{"amount":200,"reference":""}`)
	f.append(t, "acme", "w9", "deposited", `{"amount":1000,"reference":""}`)
	back := f.watch(t,
		&projectionv1.WatchRequest{Filter: "balance > 100", After: seen, MinPosition: f.position(t, "acme")})
	back.rows, back.resets = rich.rows, 0
	back.until(t, "w0=501 w4=101 w9=1000")
	if back.resets > 0 {
		t.Error("a resumed client receives all rows again")
	}
	// If nothing was missed, only the position is sent.
	again := f.watch(t, &projectionv1.WatchRequest{After: back.position})
	again.until(t, "")
	for _, w := range []*watcher{all, back, again} {
		w.close()
	}
}

func TestWatch_InvalidRequestIsRejected(t *testing.T) {
	f := start(t, natstest.Start(t), sqliteIn(t), model.Wallet)
	f.fill(t)
	for name, rule := range map[string]struct {
		req   *projectionv1.WatchRequest
		code  connect.Code
		field string // in google.rpc.BadRequest
	}{
		"unknown view": {&projectionv1.WatchRequest{View: "purses"}, connect.CodeNotFound, ""},
		"malformed filter": {
			&projectionv1.WatchRequest{View: "wallets", Filter: "balance >"}, connect.CodeInvalidArgument, "filter",
		},
		"forged position": {
			&projectionv1.WatchRequest{View: "wallets", After: "x"}, connect.CodeInvalidArgument, "after",
		},
		"forged least position": {
			&projectionv1.WatchRequest{View: "wallets", MinPosition: "x"}, connect.CodeInvalidArgument, "min_position",
		},
		"position of another tenant": {
			&projectionv1.WatchRequest{View: "wallets", After: f.position(t, "globex")}, connect.CodeInvalidArgument,
			"after",
		},
		"unknown column": {
			&projectionv1.WatchRequest{View: "wallets", Fields: []string{"secret"}}, connect.CodeInvalidArgument,
			"fields",
		},
		"foreign tenant id": {
			&projectionv1.WatchRequest{View: "wallets", TenantId: "globex"}, connect.CodePermissionDenied, "",
		},
	} {
		stream, err := f.client.Watch(as(t, "acme"), rule.req)
		if err == nil {
			_, err = stream.Receive()
			_ = stream.Close()
		}
		if connect.CodeOf(err) != rule.code || err == nil {
			t.Errorf("%s: %v, want %v", name, err, rule.code)
		}
		if field := invalidField(t, err); field != rule.field {
			t.Errorf("%s: the invalid field is %q, want %q", name, field, rule.field)
		}
	}
}

// invalidField returns the first field that an error's google.rpc.BadRequest names, "" for none.
func invalidField(t *testing.T, err error) string {
	t.Helper()
	rejected, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return ""
	}
	for _, detail := range rejected.Details() {
		value, err := connectproto.UnmarshalErrorDetail(detail)
		if err != nil {
			t.Fatal(err)
		}
		if request, ok := value.(*errdetails.BadRequest); ok {
			return request.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

func TestWatch_AllWatchersReceiveEveryChange(t *testing.T) {
	f := start(t, natstest.Start(t), sqliteIn(t), model.Wallet)
	f.fill(t)
	const watchers = 200
	var group errgroup.Group
	begun := make(chan struct{}, watchers)
	for range watchers {
		w := f.watch(t, &projectionv1.WatchRequest{MinPosition: f.position(t, "acme")})
		group.Go(func() error {
			defer w.close()
			w.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")
			begun <- struct{}{}
			w.until(t, "w0=21 w1=101 w2=201 w3=1 w4=101")
			return nil
		})
	}
	for range watchers {
		natstest.Await(t, begun, "all watches have started")
	}
	for range 20 {
		f.append(t, "acme", "w0", "deposited", `{"amount":1,"reference":""}`)
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// A position belongs to a view's definition: after a change of the definition, the client's rows are reset. A change
// of the rest of the model resets nothing.
func TestWatch_ResetsWhenDefinitionChanged(t *testing.T) {
	overBoth(t, watchResetsWhenDefinitionChanged)
}

func watchResetsWhenDefinitionChanged(t *testing.T, newStore func(t *testing.T) store.Opener) {
	var c changing
	old := wallet(t)
	c.text.Store(&old)
	f := start(t, natstest.Start(t), newStore(t), c.source)
	f.fill(t)
	apply := func(text string) {
		t.Helper()
		if text == *c.text.Load() {
			t.Fatal("the model does not change")
		}
		c.text.Store(&text)
		if _, err := f.models.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		revision := f.models.Current().Revision
		within(t, "the new views are shown", func() bool {
			res, err := f.client.ListViews(as(t, "acme"), &projectionv1.ListViewsRequest{})
			return err == nil && res.GetGenerations()[0].GetModel() == revision
		})
	}
	w := f.watch(t, &projectionv1.WatchRequest{MinPosition: f.position(t, "acme")})
	w.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")
	w.close()
	page, err := f.client.Query(as(t, "acme"),
		&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{PageSize: 2}})
	if err != nil {
		t.Fatal(err)
	}
	next := func() error {
		_, err := f.client.Query(
			as(t, "acme"),
			&projectionv1.QueryRequest{
				View:  "wallets",
				Query: &projectionv1.Query{PageSize: 2, PageToken: page.GetNextPageToken()},
			},
		)
		return err
	}

	apply("# another text\n" + old)
	back := f.watch(t, &projectionv1.WatchRequest{After: w.position})
	back.rows = w.rows
	back.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")
	back.close()
	if err := next(); back.resets != 0 || err != nil {
		t.Errorf("after an unrelated change: %d resets, next page: %v", back.resets, err)
	}

	apply(strings.Replace(old, "balance: row.balance + event.amount", "balance: row.balance + event.amount * 2", 1))
	back = f.watch(t, &projectionv1.WatchRequest{After: back.position})
	back.rows = w.rows
	back.until(t, "w0=2 w1=202 w2=402 w3=2 w4=202")
	back.close()
	if err := next(); back.resets != 1 || connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("after a change of the view: %d resets, next page: %v", back.resets, err)
	}
	// A position without a fingerprint is valid.
	bare := f.watch(t, &projectionv1.WatchRequest{After: f.position(t, "acme")})
	bare.until(t, "")
	bare.close()
	if bare.resets != 0 {
		t.Error("a position without a fingerprint resets")
	}
}

// paused is a store that blocks one call of Dialect once it is armed.
type paused struct {
	store.Store

	armed        *atomic.Bool
	entered, may chan struct{}
}

func (p paused) Dialect() query.Dialect {
	if p.armed.CompareAndSwap(true, false) {
		close(p.entered)
		<-p.may
	}
	return p.Store.Dialect()
}

// The view fails after it was found readable, and before the watcher has joined.
func TestWatch_EndsWhenViewFailsDuringStart(t *testing.T) {
	open, p := sqliteIn(t), paused{armed: &atomic.Bool{}, entered: make(chan struct{}), may: make(chan struct{})}
	f := start(
		t, natstest.Start(t),
		func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (store.Store, error) {
			rows, err := open(ctx, tenant, views, origin)
			if err != nil || tenant.String() != "acme" {
				return rows, err
			}
			one := p
			one.Store = rows
			return one, nil
		}, source(strings.Replace(orders, "cities: {columns", "cities: {key: event.address.city, columns", 1)),
	)
	f.append(t, "acme", "w0", "placed", placed(""))
	if n, err := f.rows(t, "cities"); n != 1 || err != nil {
		t.Fatalf("%d rows, %v", n, err)
	}
	ctx, after, ended := as(t, "acme"), f.position(t, "acme"), make(chan error, 1)
	p.armed.Store(true)
	go func() {
		stream, err := f.client.Watch(ctx, &projectionv1.WatchRequest{View: "cities", After: after})
		if err == nil {
			_, err = stream.Receive()
			_ = stream.Close()
		}
		ended <- err
	}()
	natstest.Await(t, p.entered, "the watch begins")
	f.append(t, "acme", "w1", "placed", placed("address={}")) // it affects no row
	within(t, "the view fails", func() bool {
		_, count := f.service.Failing(1)
		return count == 1
	})
	close(p.may)
	if err := natstest.Await(t, ended, "the watch ends"); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("the watcher of a failed view continues: %v", err)
	}
}
