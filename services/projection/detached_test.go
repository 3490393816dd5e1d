package projection_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/projection/store"
)

// orders is a model whose views fail on various events, except `plain`.
const orders = `model: orders
aggregates:
  wallet:
    commands: {place: {emit: [{event: placed, data: {price: cmd.price}}]}}
    evolve: {placed: {}}
views:
  plain: {columns: {n: int}, on: {wallet.placed: {fold: {n: count}}}}
  totals:
    key: "'all'"
    columns: {total: double}
    on: {wallet.placed: {upsert: {total: "has(row.total) ? row.total + event.price : event.price"}}}
  cities: {columns: {city: string}, on: {wallet.placed: {upsert: {city: event.address.city}}}}
  doubled: {columns: {list: json}, on: {wallet.placed: {upsert: {list: "event.list.map(x, x * 2)"}}}}
  texts: {columns: {text: {type: string, index: true}}, on: {wallet.placed: {upsert: {text: event.text}}}}
  times: {columns: {at: timestamp}, on: {wallet.placed: {upsert: {at: event.at}}}}
`

// placed returns the data of an order, with a change.
func placed(changed string) string {
	members := map[string]string{
		"price": "1.5", "address": `{"city":"Ulm"}`, "list": "[1]", "text": `"t"`, "at": `"2030-05-01T10:00:00Z"`,
	}
	name, value, _ := strings.Cut(changed, "=")
	if name != "" {
		members[name] = value
	}
	var out []string
	for name, value := range members {
		out = append(out, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(out, ",") + "}"
}

// incompressible returns 4 kB of text that no index of PostgreSQL can store.
func incompressible() string {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 4096)
	for i := range text {
		text[i] = 'a' + byte(random.IntN(26))
	}
	return string(text)
}

var failures = []struct {
	view, change string
	reason       string // in the error; "": only PostgreSQL rejects it
}{
	{"totals", "price=2", "row.total + event.price"},
	{"cities", `address={}`, "event.address.city"},
	{"doubled", "list=[" + strings.Repeat("1,", 7999) + "1]", "event.list.map"},
	{"texts", `text="` + incompressible() + `"`, ""},
	{"times", `at="soon"`, "is not a timestamp"},
}

func source(text string) func(context.Context) (string, []byte, error) {
	return func(context.Context) (string, []byte, error) { return "model", []byte(text), nil }
}

// rows returns the number of a view's rows, with every appended event applied.
func (f *fixture) rows(t *testing.T, view string) (int, error) {
	t.Helper()
	res, err := f.client.Query(as(t, "acme"),
		&projectionv1.QueryRequest{View: view, MinPosition: f.position(t, "acme")})
	return len(res.GetRows()), err
}

// reasonOf returns the ErrorInfo of an error.
func reasonOf(err error) *errdetails.ErrorInfo {
	failed, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, detail := range failed.Details() {
		value, err := connectproto.UnmarshalErrorDetail(detail)
		if info, ok := value.(*errdetails.ErrorInfo); ok && err == nil {
			return info
		}
	}
	return nil
}

func TestViews_FailingViewDoesNotAffectOthers(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		js := natstest.Start(t)
		open := newStore(t)
		f := start(t, js, open, source(orders))
		f.append(t, "acme", "w0", "placed", placed(""))
		well := map[string]bool{"plain": true}
		for _, failure := range failures {
			f.append(t, "acme", failure.view, "placed", placed(failure.change))
			f.append(t, "acme", "w2", "placed", placed(""))
			well[failure.view] = failure.reason == "" && strings.Contains(t.Name(), "sqlite")
		}
		check := func(t *testing.T, f *fixture) {
			t.Helper()
			if n, err := f.rows(t, "plain"); err != nil || n != 2+len(failures) {
				t.Fatalf("healthy view: %d rows, %v", n, err)
			}
			for _, failure := range failures {
				_, err := f.rows(t, failure.view)
				if well[failure.view] {
					if err != nil {
						t.Errorf("%s: %v", failure.view, err)
					}
					continue
				}
				info := reasonOf(err)
				if connect.CodeOf(err) != connect.CodeFailedPrecondition ||
					!strings.Contains(err.Error(), failure.reason) || info.GetReason() != "VIEW_FAILED" {
					t.Errorf("%s: %v, %v", failure.view, err, info)
				}
				if m := info.GetMetadata(); m["view"] != failure.view || m["event_type"] != "wallet.placed" ||
					m["aggregate"] != "wallet/"+failure.view || m["event_id"] == "" || m["reason"] == "" {
					t.Errorf("%s: %v", failure.view, m)
				}
			}
			if err := f.service.Ready(t.Context(), natstest.Tenant(t, "acme")); err != nil {
				t.Errorf("the tenant is not ready: %v", err)
			}
		}
		check(t, f)
		now := gathered(t, f.service)
		if now["headgate_projection_failing_views{}"] < 4 ||
			now["headgate_projection_view_failing{tenant=acme,view=totals}"] != 1 ||
			now["headgate_projection_tenants{state=failing}"] != 1 {
			t.Errorf("%v", now)
		}
		views, err := f.client.ListViews(as(t, "acme"), &projectionv1.ListViewsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, view := range views.GetViews() {
			failed := view.GetState() == projectionv1.ViewState_VIEW_STATE_FAILED
			if failed == well[view.GetName()] || failed != (view.GetFailure().GetReason() != "") ||
				failed != (view.GetFailure().GetSince() != nil) {
				t.Errorf("%v", view)
			}
		}
		if n, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{View: "plain", Key: "w2"}); err != nil ||
			n.GetRow().AsMap()["n"] != float64(len(failures)) {
			t.Errorf("%v, %v", n, err)
		}
		f.stop()

		again := start(t, js, open, source(orders)) // the process restarts
		again.last, again.versions, again.sequence = f.last, f.versions, f.sequence
		check(t, again)
		again.append(t, "acme", "w3", "placed", placed(""))
		if n, err := again.rows(t, "plain"); err != nil || n != 3+len(failures) {
			t.Errorf("%d rows, %v", n, err)
		}
		again.stop()

		rebuilt := start(t, js, newStore(t), source(orders)) // rebuilt from the journal
		rebuilt.last, rebuilt.versions, rebuilt.sequence = again.last, again.versions, again.sequence
		within(t, "the views are built", func() bool {
			n, err := rebuilt.rows(t, "plain")
			return err == nil && n == 3+len(failures)
		})
		if _, err := rebuilt.rows(t, "totals"); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%v", err)
		}
	})
}

// skip stores a skip record of the event that a view of acme fails on.
func (f *fixture) skip(t *testing.T, view string, revoked bool) {
	t.Helper()
	bucket, err := kv.Open[skips.Skip](t.Context(), f.js, streams.BucketSkips)
	if err != nil {
		t.Fatal(err)
	}
	record := f.skipped
	if !revoked {
		// A view that has just been restored reports the failure of before until it fails again.
		within(t, "a query and the list of failing views report the same event", func() bool {
			record = skips.Skip{}
			_, err := f.rows(t, view)
			failing, _ := f.service.Failing(10)
			for _, one := range failing {
				if one.View == view {
					record = skips.Skip{
						Tenant:      "acme",
						View:        view,
						Fingerprint: one.Fingerprint,
						EventID:     one.EventID,
						Sequence:    one.Sequence,
						Reason:      "a test",
					}
				}
			}
			return record.EventID != "" && record.EventID == reasonOf(err).GetMetadata()["event_id"]
		})
	}
	record.Revoked = revoked
	f.skipped = record
	kept, err := bucket.Get(t.Context(), record.Key())
	if err != nil && !revoked {
		kept.Revision = 0
	}
	if _, err := bucket.Put(as(t, "acme"), record.Key(), record, kept.Revision); err != nil {
		t.Fatal(err)
	}
}

func TestViews_SkippedEventLetsViewContinue(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		js := natstest.Start(t)
		open := newStore(t)
		f := start(t, js, open, source(orders))
		f.append(t, "acme", "w0", "placed", placed(""))
		f.append(t, "acme", "w1", "placed", placed("price=2"))
		f.append(t, "acme", "w2", "placed", placed("price=2.5"))
		total := func(f *fixture) (*projectionv1.GetResponse, error) {
			return f.client.Get(as(t, "acme"),
				&projectionv1.GetRequest{View: "totals", Key: "all", MinPosition: f.position(t, "acme")})
		}
		shows := func(t *testing.T, f *fixture, want float64) {
			t.Helper()
			within(t, "the view continues", func() bool {
				res, err := total(f)
				return err == nil && res.GetIncomplete() && res.GetRow().AsMap()["total"] == want
			})
		}
		f.skip(t, "totals", false)
		shows(t, f, 4)
		f.append(t, "acme", "w3", "placed", placed("price=0.5"))
		shows(t, f, 4.5)
		if res, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "plain"}); err != nil ||
			res.GetIncomplete() {
			t.Errorf("other view: %v, %v", res, err)
		}
		f.stop()
		again := start(t, js, open, source(orders))
		again.last, again.versions, again.sequence, again.skipped = f.last, f.versions, f.sequence, f.skipped
		shows(t, again, 4.5)
		rebuilt := start(t, js, newStore(t), source(orders))
		rebuilt.sequence = again.sequence
		shows(t, rebuilt, 4.5)

		again.skip(t, "totals", true)
		for _, node := range []*fixture{again, rebuilt} {
			within(t, "the view fails again", func() bool {
				_, err := total(node)
				return connect.CodeOf(err) == connect.CodeFailedPrecondition
			})
		}
		again.skip(t, "totals", false)
		shows(t, again, 4.5)
		shows(t, rebuilt, 4.5)
	})
}

func TestViews_CorrectedModelRecoversView(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		var c changing
		text := orders
		c.text.Store(&text)
		f := start(t, natstest.Start(t), newStore(t), c.source)
		f.append(t, "acme", "w0", "placed", placed(""))
		f.append(t, "acme", "w1", "placed", placed("address={}"))
		if _, err := f.rows(t, "cities"); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Fatal(err)
		}
		corrected := strings.Replace(orders, "city: event.address.city}",
			"city: \"event.address[?'city'].orValue('')\"}", 1)
		c.text.Store(&corrected)
		if changed, err := f.models.Reload(t.Context()); err != nil || !changed {
			t.Fatalf("%v, %v", changed, err)
		}
		within(t, "the view is healthy", func() bool {
			n, err := f.rows(t, "cities")
			return err == nil && n == 2
		})
	})
}

// A watcher of a view that fails receives the reason, and other watchers are not affected.
func TestViews_WatchersOfFailedViewEnd(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		f := start(t, natstest.Start(t), newStore(t), source(orders))
		f.append(t, "acme", "w0", "placed", placed(""))
		failing := f.watch(t, &projectionv1.WatchRequest{View: "totals"})
		defer failing.close()
		well := f.watch(t, &projectionv1.WatchRequest{View: "plain"})
		defer well.close()
		f.append(t, "acme", "w1", "placed", placed("price=2"))
		for {
			if _, err := failing.receive(); err != nil {
				if connect.CodeOf(err) != connect.CodeFailedPrecondition || reasonOf(err).GetReason() != "VIEW_FAILED" {
					t.Errorf("%v", err)
				}
				break
			}
		}
		f.append(t, "acme", "w2", "placed", placed(""))
		well.until(t, "w0=0 w1=0 w2=0")
	})
}

// Nodes that follow the same tenant in one database agree, even while a view is detached.
func TestViews_NodesSharingDatabaseAgree(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		if strings.Contains(t.Name(), "sqlite") {
			t.Skip("a file belongs to one process")
		}
		js, open := natstest.Start(t), newStore(t)
		first, second := start(t, js, open, source(orders)), start(t, js, open, source(orders))
		total := 0.0
		add := func(price float64) {
			t.Helper()
			total += price
			first.append(t, "acme", "w", "placed", placed(fmt.Sprintf("price=%v", price)))
		}
		both := func(what string, holds func(f *fixture) bool) {
			t.Helper()
			for _, f := range []*fixture{first, second} {
				f.sequence = first.sequence
				within(t, what, func() bool { return holds(f) })
			}
		}
		shows := func(f *fixture) bool {
			res, err := f.client.Get(as(t, "acme"),
				&projectionv1.GetRequest{View: "totals", Key: "all", MinPosition: f.position(t, "acme")})
			return err == nil && res.GetRow().AsMap()["total"] == total
		}
		add(0.5)
		both("the view is current", shows)
		first.append(t, "acme", "w", "placed", placed("price=2"))
		for range 20 {
			add(1.5)
		}
		both("the view fails", func(f *fixture) bool {
			_, err := f.rows(t, "totals")
			return connect.CodeOf(err) == connect.CodeFailedPrecondition
		})
		first.skip(t, "totals", false)
		for range 20 {
			add(2.5)
		}
		both("the view continues", shows)
		if n, err := second.client.Get(as(t, "acme"), &projectionv1.GetRequest{View: "plain", Key: "w"}); err != nil ||
			n.GetRow().AsMap()["n"] != 42.0 {
			t.Errorf("%v, %v", n, err)
		}
	})
}
