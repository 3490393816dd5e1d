package fleet

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
)

// Announcements extend the settings: they cannot replace a node of the settings, gateways are not routed to, and an
// incomplete announcement does not hide the others. Only what is ignored because of a fault is logged.
func TestRouter_AnnouncementsExtendTheSettings(t *testing.T) {
	settings := route.Node{
		ID:       "own",
		Kind:     "thing",
		Endpoint: "127.0.0.1:1",
		Ready:    true,
	}
	for name, c := range map[string]struct {
		announced fleet.Node
		ids       []string // of the table
		logged    bool
	}{
		"another node": {
			fleet.Node{ID: "new", Kind: "thing", Endpoint: "127.0.0.1:2"}, []string{"new", "own"}, false,
		},
		"the node itself": {
			fleet.Node{ID: "own", Kind: "thing", Endpoint: "127.0.0.1:1"}, []string{"own"}, false,
		},
		"its id, another kind": {
			fleet.Node{ID: "own", Kind: "other", Endpoint: "127.0.0.1:1"}, []string{"own"}, true,
		},
		"its id, other endpoint": {
			fleet.Node{ID: "own", Kind: "thing", Endpoint: "127.0.0.1:2"}, []string{"own"}, true,
		},
		"no kind":     {fleet.Node{ID: "new", Endpoint: "127.0.0.1:2"}, []string{"own"}, true},
		"no endpoint": {fleet.Node{ID: "new", Kind: "thing"}, []string{"own"}, true},
		"a gateway": {
			fleet.Node{ID: "new", Kind: contextkit.KindGateway, Endpoint: "127.0.0.1:2"}, []string{"own"}, false,
		},
	} {
		table := route.NewTable()
		if err := table.SetNodes([]route.Node{settings}); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r := NewRouter(table, nil, zerolog.New(&log))
		r.announce(fleet.Fleet{Nodes: []fleet.Node{
			c.announced, {ID: "z", Kind: "thing", Endpoint: "127.0.0.1:9"},
		}})
		var ids []string
		for _, node := range table.Nodes() {
			ids = append(ids, node.ID)
		}
		if want := append(slices.Clone(c.ids), "z"); !slices.Equal(ids, want) {
			t.Errorf("%s: the table has %v, want %v", name, ids, want)
		}
		if own, _ := table.Node("own"); own != settings {
			t.Errorf("%s: the node of the settings is %+v", name, own)
		}
		if logged := log.Len() > 0; logged != c.logged {
			t.Errorf("%s: %s", name, &log)
		}
	}
}

// Lost nodes are nodes to which calls were routed: gateways are none.
func TestRouter_LostGatewaysAreNotReported(t *testing.T) {
	lost := func(id string, kind contextkit.Kind) fleet.LostNode {
		return fleet.LostNode{Node: fleet.Node{ID: id, Kind: kind, Endpoint: "127.0.0.1:1"}}
	}
	got := lostNodes([]fleet.LostNode{lost("g", contextkit.KindGateway), lost("none", ""), lost("a", "thing")})
	if want := []route.Node{{ID: "a", Kind: "thing", Endpoint: "127.0.0.1:1"}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Stored placements override those of the settings, which apply again once the stored one is gone; a whole set of
// placements replaces all earlier ones, and changes only their tenants'.
func TestRouter_StoredPlacementsOverrideTheSettings(t *testing.T) {
	acme, globex, initech := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex"), natstest.Tenant(t, "initech")
	fixed := []route.Placement{
		{Tenant: acme, Kind: "thing", Node: "n1"},
		{Tenant: acme, Kind: "other", Node: "n9"},
		{Tenant: globex, Kind: "thing", Node: "n1"},
	}
	r := NewRouter(route.NewTable(), fixed, zerolog.Nop())
	put := func(revision uint64, placed map[contextkit.TenantID]string) map[string]kv.Entry[fleet.Placement] {
		entries := map[string]kv.Entry[fleet.Placement]{}
		for tenant, node := range placed {
			entries[fleet.PlacementKey("thing", tenant)] = kv.Entry[fleet.Placement]{
				Value:    fleet.Placement{Node: node},
				Revision: revision,
			}
		}
		return entries
	}
	for n, step := range []struct {
		changes  kv.Changes[fleet.Placement]
		want     map[contextkit.TenantID]string // the nodes of the tenants
		revision uint64
	}{
		{
			kv.Changes[fleet.Placement]{
				Put:   put(5, map[contextkit.TenantID]string{acme: "n2", initech: "n2"}),
				Whole: true,
			},
			map[contextkit.TenantID]string{acme: "n2", globex: "n1", initech: "n2"}, 5,
		},
		{
			kv.Changes[fleet.Placement]{Put: put(6, map[contextkit.TenantID]string{globex: "n3"})},
			map[contextkit.TenantID]string{acme: "n2", globex: "n3", initech: "n2"}, 6,
		},
		{
			kv.Changes[fleet.Placement]{Put: put(7, map[contextkit.TenantID]string{acme: ""})}, // removed by control
			map[contextkit.TenantID]string{acme: "n1", globex: "n3", initech: "n2"}, 7,
		},
		{
			kv.Changes[fleet.Placement]{Deleted: []string{fleet.PlacementKey("thing", globex), "no key"}},
			map[contextkit.TenantID]string{acme: "n1", globex: "n1", initech: "n2"}, 7,
		},
		{
			kv.Changes[fleet.Placement]{Put: put(3, map[contextkit.TenantID]string{globex: "n4"}), Whole: true},
			map[contextkit.TenantID]string{acme: "n1", globex: "n4"}, 7,
		},
	} {
		r.place(step.changes)
		for _, tenant := range []contextkit.TenantID{acme, globex, initech} {
			if node, _, _ := r.table.Placed("thing", tenant); node != step.want[tenant] {
				t.Errorf("step %d: %s is placed on %q, want %q", n+1, tenant, node, step.want[tenant])
			}
		}
		if node, _, _ := r.table.Placed("other", acme); node != "n9" {
			t.Errorf("step %d: the placement of another kind is on %q", n+1, node)
		}
		if r.PlacementRevision() != step.revision {
			t.Errorf("step %d: revision %d, want %d", n+1, r.PlacementRevision(), step.revision)
		}
	}
}

// A node that has answered is asked again after the longest wait; one that fails, after the first.
func TestBounds_FirstRequestForDescriptors(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want time.Duration
	}{"answered": {nil, 10 * time.Second}, "failed": {errors.New("away"), 500 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked attempts
				r := NewReflector(&asked, nil, upstream.PoolConfig{}, zerolog.Nop())
				defer r.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 13*time.Second)
				defer cancel()
				began := time.Now()
				r.follow(ctx, &describedNode{Node: Node{"node", "thing", "an address without a port"}, err: c.err})
				if len(asked.at) == 0 {
					t.Fatal("the node is not asked")
				}
				if wait := asked.at[0].Sub(began); wait < c.want*3/4 || wait > c.want*5/4 {
					t.Errorf("the node is asked after %v, want %v and a quarter more or less", wait, c.want)
				}
			})
		})
	}
	if maxQueuedNodes != 64 || maxDescribedNodes != 1024 {
		t.Errorf("%d nodes wait, %d are remembered", maxQueuedNodes, maxDescribedNodes)
	}
}

// Equal failures of a node in a row are logged once; what ends with the gateway is neither logged nor reported, and an
// announced node that does not answer is asked again after its next announcement.
func TestReflector_FailuresAreReportedOnce(t *testing.T) {
	var (
		log   bytes.Buffer
		asked attempts
	)
	r := NewReflector(&asked, nil, upstream.PoolConfig{}, zerolog.New(&log))
	defer r.Close()
	node := &describedNode{Node: Node{"node", "thing", "an address without a port"}}
	for n, want := range []int{1, 1, 2} {
		if n == 2 {
			node.err = errors.New("another failure")
		}
		r.renew(t.Context(), node)
		if lines := strings.Count(log.String(), "\n"); lines != want || len(asked.at) != n+1 || node.err == nil {
			t.Errorf("%d failures: %d lines, want %d, %d reports: %s", n+1, lines, want, len(asked.at), &log)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	node.err = nil
	if r.renew(ended, node); len(asked.at) != 3 || node.err != nil {
		t.Errorf("%d reports, %v", len(asked.at), node.err)
	}
	if r.describeAnnounced(t.Context(), fleet.Node{ID: "away", Endpoint: "an address without a port"}) {
		t.Error("an unreachable node counts as described")
	}
}
