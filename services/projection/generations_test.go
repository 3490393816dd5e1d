package projection_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// changing is a source whose document the test changes.
type changing struct{ text atomic.Pointer[string] }

func (c *changing) source(context.Context) (string, []byte, error) {
	return "model", []byte(*c.text.Load()), nil
}

func wallet(t *testing.T) string {
	t.Helper()
	_, text, err := model.Wallet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// within waits until f holds.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestGenerations_NewModelIsBuiltBeforeItIsShown(t *testing.T) {
	overBoth(t, newModelIsBuiltBeforeItIsShown)
}

func newModelIsBuiltBeforeItIsShown(t *testing.T, newStore func(t *testing.T) store.Opener) {
	var c changing
	old := wallet(t)
	c.text.Store(&old)
	f := start(t, natstest.Start(t), newStore(t), c.source)
	f.fill(t)
	position := f.position(t, "acme")
	query := func() (*projectionv1.QueryResponse, error) {
		return f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets", MinPosition: position})
	}
	if res, err := query(); err != nil || len(res.GetRows()) != 5 {
		t.Fatalf("%v, %v", res, err)
	}
	w := f.watch(t, &projectionv1.WatchRequest{})
	defer w.close()
	w.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")

	// From now on balances are shown doubled; no call sees anything in between.
	next := strings.Replace(old, "patch: {balance: row.balance + event.amount,",
		"patch: {balance: row.balance + 2 * event.amount,", 1)
	c.text.Store(&next)
	if changed, err := f.models.Reload(t.Context()); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	within(t, "the new views are shown", func() bool {
		res, err := query()
		if err != nil {
			if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "moved") {
				t.Fatal(err) // between two followers, a call may be asked to retry
			}
			return false
		}
		if len(res.GetRows()) != 5 {
			t.Fatalf("an incomplete view is shown: %v", res)
		}
		balance := res.GetRows()[1].AsMap()["balance"]
		if balance != 101.0 && balance != 202.0 {
			t.Fatalf("an intermediate view is shown: %v", res)
		}
		return balance == 202.0
	})
	if _, err := w.receive(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("watcher of the old views: got %v, want a request to resume", err)
	}
	within(t, "one generation remains", func() bool {
		views, err := f.client.ListViews(as(t, "acme"), &projectionv1.ListViewsRequest{})
		return err == nil && len(views.GetGenerations()) == 1 &&
			views.GetGenerations()[0].GetModel() == f.models.Current().Revision
	})

	// A model that is reverted shows the old views, which still exist.
	c.text.Store(&old)
	if _, err := f.models.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, "the old views are shown again", func() bool {
		res, err := query()
		return err == nil && res.GetRows()[1].AsMap()["balance"] == 101.0
	})
}

func TestGenerations_FollowSetOfTenants(t *testing.T) {
	overBoth(t, generationsFollowSetOfTenants)
}

func generationsFollowSetOfTenants(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	f.append(t, "initech", "w", "opened", `{"owner":"peter"}`)
	acme, globex, initech := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex"), natstest.Tenant(t, "initech")
	get := func(tenant, key string) error {
		_, err := f.client.Get(as(t, tenant), &projectionv1.GetRequest{View: "wallets", Key: key})
		return err
	}
	within(t, "globex is served", func() bool { return get("globex", "secret") == nil })
	f.tenants.Replace([]contextkit.TenantID{acme, initech})
	within(t, "initech is served", func() bool { return get("initech", "w") == nil })
	if err := get("globex", "secret"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("removed tenant: %v", err)
	}
	if err := f.service.Ready(t.Context(), globex); err == nil {
		t.Error("the node is ready for a removed tenant")
	}
	within(t, "acme is served throughout", func() bool { return get("acme", "w0") == nil })
	f.tenants.Replace([]contextkit.TenantID{acme, globex, initech})
	within(t, "globex is served again", func() bool { return get("globex", "secret") == nil })
}

func TestWatch_ClientThatDoesNotReadBlocksNothing(t *testing.T) {
	f := start(t, natstest.Start(t), sqliteIn(t), model.Wallet)
	f.fill(t)
	for _, tenant := range []string{"initech", "umbrella"} {
		f.append(t, tenant, "w", "opened", `{"owner":"peter"}`)
	}
	within(t, "acme is served", func() bool {
		_, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{View: "wallets", Key: "w0"})
		return err == nil
	})
	silent, other := f.watch(t, &projectionv1.WatchRequest{}), f.watch(t, &projectionv1.WatchRequest{})
	defer silent.close()
	defer other.close()
	for _, w := range []*watcher{silent, other} { // both are connected
		if _, err := w.receive(); err != nil {
			t.Fatal(err)
		}
	}
	f.append(t, "acme", "w0", "deposited", `{"amount":1,"reference":""}`)
	if _, err := other.receive(); err != nil { // the silent client does not read it
		t.Fatal(err)
	}
	for _, tenant := range []string{"initech", "umbrella"} { // the first replaces acme, and the second the first
		f.tenants.Replace([]contextkit.TenantID{natstest.Tenant(t, tenant)})
		within(t, tenant+" is served", func() bool {
			_, err := f.client.Get(as(t, tenant), &projectionv1.GetRequest{View: "wallets", Key: "w"})
			return err == nil
		})
	}
	// Both are notified, each once it reads.
	for name, w := range map[string]*watcher{"reading client": other, "client that does not read": silent} {
		var err error
		for err == nil {
			_, err = w.receive()
		}
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: got %v, want a request to resume", name, err)
		}
	}
}
