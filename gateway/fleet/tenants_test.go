package fleet

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// setter receives the states of tenants.
type setter chan map[contextkit.TenantID]TenantState

func (s setter) SetTenants(states map[contextkit.TenantID]TenantState) { s <- states }

// await returns the first value that fits.
func await[T any](t *testing.T, values <-chan T, fits func(T) bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case value := <-values:
			if fits(value) {
				return
			}
		case <-t.Context().Done():
			t.Fatal("no value fits")
		case <-limit:
			t.Fatal("no value fits")
		}
	}
}

func TestTenants_Suspension(t *testing.T) {
	t.Parallel()
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	var tenants Tenants
	if got := tenants.Suspension(acme); got != "" {
		t.Errorf("without states: %q", got)
	}
	tenants.Replace(
		map[contextkit.TenantID]TenantState{acme: {Suspended: true, Reason: "unpaid"}, globex: {Reason: "old"}},
	)
	if a, g := tenants.Suspension(acme), tenants.Suspension(globex); a != "tenant acme is suspended: unpaid" ||
		g != "" {
		t.Errorf("%q, %q", a, g)
	}
	tenants.Replace(map[contextkit.TenantID]TenantState{acme: {Suspended: true}})
	if got := tenants.Suspension(acme); got != "tenant acme is suspended" {
		t.Errorf("without a reason: %q", got)
	}
}

// opening is a JetStream whose buckets are opened also after the call's context has ended.
type opening struct{ jetstream.JetStream }

func (o opening) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	return o.JetStream.KeyValue(context.WithoutCancel(ctx), bucket)
}

// A gateway that cannot read the states of tenants does not start: it would admit suspended tenants.
func TestLoadTenants_FailsUnlessAllStatesAreRead(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, js := range map[string]jetstream.JetStream{
		"the bucket is not opened": natstest.Start(t),
		"the bucket is not read":   opening{natstest.Start(t)},
	} {
		states := make(setter, 1)
		if err := LoadTenants(ctx, js, states); !errors.Is(err, context.Canceled) || len(states) != 0 {
			t.Errorf("%s: %v, %d states", what, err, len(states))
		}
	}
}

// TestFollow_StoredPlacementsAndTenants covers the tenants' states and the placements, which a gateway loads before it
// serves, and then follows.
func TestFollow_StoredPlacementsAndTenants(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	tenants, err := kv.Open[fleet.Tenant](t.Context(), js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	placements, err := kv.Open[fleet.Placement](t.Context(), js, streams.BucketPlacement)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.PlatformContext(t.Context())
	if _, err := tenants.Put(
		ctx, "acme", fleet.Tenant{Suspended: true, Reason: "unpaid", Quota: &fleet.Quota{Rate: 5, Burst: 6}}, 0,
	); err != nil {
		t.Fatal(err)
	}
	if _, err := tenants.Put(ctx, "Not_a_tenant", fleet.Tenant{Suspended: true}, 0); err != nil {
		t.Fatal(err)
	}
	key := fleet.PlacementKey(contextkit.KindProjection, acme)
	placed, err := placements.Put(ctx, key, fleet.Placement{Node: "p2"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	table := route.NewTable()
	nodes := []route.Node{
		{ID: "p1", Kind: contextkit.KindProjection, Endpoint: "127.0.0.1:1", Ready: true},
		{ID: "p2", Kind: contextkit.KindProjection, Endpoint: "127.0.0.1:2", Ready: true},
	}
	fixed := []route.Placement{{Tenant: acme, Kind: contextkit.KindProjection, Node: "p1"}}
	if err := table.Replace(nodes, fixed); err != nil {
		t.Fatal(err)
	}
	r := NewRouter(table, fixed, zerolog.Nop())
	states := make(setter, 16)
	if err := r.LoadPlacements(ctx, js); err != nil {
		t.Fatal(err)
	}
	if err := LoadTenants(ctx, js, states); err != nil {
		t.Fatal(err)
	}
	want := map[contextkit.TenantID]TenantState{
		acme: {Suspended: true, Reason: "unpaid", Limits: limit.Config{Rate: 5, Burst: 6}},
	}
	if got := <-states; !maps.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	node := func(tenant contextkit.TenantID) string {
		found, _ := table.Lookup(contextkit.KindProjection, tenant)
		return found.ID
	}
	if node(acme) != "p2" || r.PlacementRevision() != placed {
		t.Errorf("acme is routed to %s at revision %d, want p2 at %d", node(acme), r.PlacementRevision(), placed)
	}

	following, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { r.FollowPlacements(following, js) })
	done.Go(func() { FollowTenants(following, js, states, zerolog.Nop()) })
	defer done.Wait()
	defer cancel()
	if _, err := tenants.Put(ctx, "globex", fleet.Tenant{Suspended: true}, 0); err != nil {
		t.Fatal(err)
	}
	await(t, states, func(all map[contextkit.TenantID]TenantState) bool {
		return all[globex].Suspended && all[acme].Suspended
	})
	if err := placements.Delete(ctx, key, placed); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	await(t, tick.C, func(time.Time) bool { return node(acme) == "p1" }) // the placement of the settings

	cancel()
	done.Wait()
	for _, bucket := range []string{streams.BucketPlacement, streams.BucketTenants} {
		if err := js.DeleteKeyValue(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	if placed, states := r.LoadPlacements(ctx, js), LoadTenants(ctx, js, states); placed == nil || states == nil {
		t.Errorf("without buckets: placements %v, tenants %v; want errors", placed, states)
	}
}
