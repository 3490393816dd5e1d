package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/control"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// patience bounds every wait of a test.
const patience = 40 * time.Second

// world is a NATS server with nodes that announce themselves.
type world struct {
	js      jetstream.JetStream
	pool    *upstream.Pool
	running sync.WaitGroup
	ctx     context.Context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{js: natstest.Start(t), pool: upstream.NewPool(upstream.PoolConfig{})}
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(context.Background()))
	w.ctx = ctx
	t.Cleanup(func() {
		cancel()
		w.running.Wait()
		w.pool.Close()
	})
	return w
}

// run runs f until the test ends.
func (w *world) run(t *testing.T, f func(context.Context) error) {
	w.running.Go(func() {
		if err := f(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

func quiet(error) {}

// projection starts a projection node that serves its assigned tenants.
func (w *world) projection(t *testing.T, id string, tenants ...contextkit.TenantID) *rpc.Tenants {
	t.Helper()
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	assignment, err := fleet.OpenAssignment(t.Context(), w.js, contextkit.KindProjection, id, tenants)
	if err != nil {
		t.Fatal(err)
	}
	serves, _, err := assignment.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := rpc.NewTenants(serves...)
	service, err := projection.New(t.Context(), projection.Config{}, w.js, models, served, sqlite.In(t.TempDir()), nil,
		zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "projection", Addr: "127.0.0.1:0"}, service.Ready, zerolog.Nop())
	service.Register(server.RPC)
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.run(t, server.Serve)
	w.run(t, func(ctx context.Context) error { return errors.Join(service.Run(ctx), service.Close()) })
	w.run(t, func(ctx context.Context) error {
		assignment.Follow(ctx, func(serves, _ []contextkit.TenantID) { served.Replace(serves) }, quiet)
		return nil
	})
	w.run(t, func(ctx context.Context) error {
		return fleet.Announce(
			ctx, w.js, fleet.Node{ID: id, Kind: contextkit.KindProjection, Endpoint: server.Addr()},
			func(ctx context.Context, now *fleet.Node) error {
				now.Tenants = nil
				for _, tenant := range served.All() {
					now.Tenants = append(now.Tenants, tenant.String())
				}
				return server.Ready(ctx)
			},
		)
	})
	return served
}

// gateway announces a gateway that follows the placements.
func (w *world) gateway(t *testing.T, id string) {
	t.Helper()
	awake := make(chan struct{})
	close(awake)
	w.lateGateway(t, id, awake)
}

// lateGateway announces a gateway that receives no placement until awake is closed.
func (w *world) lateGateway(t *testing.T, id string, awake <-chan struct{}) {
	t.Helper()
	placements, err := kv.Open[fleet.Placement](t.Context(), w.js, streams.BucketPlacement)
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu      sync.Mutex
		routing uint64
	)
	w.run(t, func(ctx context.Context) error {
		select {
		case <-awake:
		case <-ctx.Done():
			return nil
		}
		placements.Follow(ctx, func(all map[string]kv.Entry[fleet.Placement]) {
			mu.Lock()
			defer mu.Unlock()
			for _, kept := range all {
				routing = max(routing, kept.Revision)
			}
		}, quiet)
		return nil
	})
	w.run(t, func(ctx context.Context) error {
		return fleet.Announce(
			ctx, w.js, fleet.Node{ID: id, Kind: contextkit.KindGateway, Endpoint: "127.0.0.1:1"},
			func(_ context.Context, now *fleet.Node) error {
				mu.Lock()
				defer mu.Unlock()
				now.Routing = routing
				return nil
			},
		)
	})
}

// controller is a control node in the test's process.
type controller struct {
	views      controlv1connect.ViewServiceClient
	journal    controlv1connect.JournalServiceClient
	integrity  *journal.Integrity
	fleet      controlv1connect.FleetServiceClient
	placements controlv1connect.PlacementServiceClient
	tenants    controlv1connect.TenantServiceClient
	models     controlv1connect.ModelServiceClient
	audit      controlv1connect.AuditServiceClient
	timeline   controlv1connect.TimelineServiceClient
	die        context.CancelFunc
	dead       chan struct{}
}

// control starts a control node that crashes when it has entered the step ("": never), which it detects from its log,
// before it does anything else.
func (w *world) control(t *testing.T, id, step string) *controller {
	t.Helper()
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	watch := writer(func(line []byte) {
		var entry struct{ Message, Step string }
		if json.Unmarshal(line, &entry) == nil && entry.Message == "move" && entry.Step == step {
			cancel()
		}
	})
	nodes := control.Nodes{Client: contextkit.NewClient(upstream.NewTransport(w.pool)), At: upstream.WithEndpoint}
	service, err := control.New(t.Context(), control.Config{ID: id, Nodes: nodes}, w.js, models, zerolog.New(watch))
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{die: cancel, dead: make(chan struct{})}
	w.running.Go(func() {
		defer close(c.dead)
		if err := service.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	server := connect.NewServer(contextkit.ServerInterceptor, rpc.Validate)
	service.Register(server)
	client := contextkit.NewClient(connectinprocess.New(server))
	c.fleet, c.placements, c.tenants = controlv1connect.NewFleetServiceClient(
		client,
	), controlv1connect.NewPlacementServiceClient(client), controlv1connect.NewTenantServiceClient(client)
	c.views = controlv1connect.NewViewServiceClient(client)
	c.models, c.audit, c.timeline = controlv1connect.NewModelServiceClient(
		client,
	), controlv1connect.NewAuditServiceClient(client), controlv1connect.NewTimelineServiceClient(client)
	c.journal, c.integrity = controlv1connect.NewJournalServiceClient(client), service.Integrity()
	return c
}

type writer func([]byte)

func (w writer) Write(line []byte) (int, error) {
	w(bytes.TrimSpace(line))
	return len(line), nil
}

func platform(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// knows waits until the control node knows the given number of nodes.
func (c *controller) knows(t *testing.T, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d nodes are known", count), func() bool {
		res, err := c.fleet.GetFleet(platform(t), &controlv1.GetFleetRequest{})
		return err == nil && len(res.GetFleet().GetNodes()) == count
	})
}

// end waits until the move has ended.
func (c *controller) end(t *testing.T, id string) *controlv1.Move {
	t.Helper()
	stream, err := c.placements.WatchMove(platform(t), &controlv1.WatchMoveRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var last *controlv1.Move
	for {
		res, err := stream.Receive()
		if err != nil {
			if last.GetStep() != controlv1.MoveStep_MOVE_STEP_DONE &&
				last.GetStep() != controlv1.MoveStep_MOVE_STEP_ABORTED {
				t.Fatalf("the move is unfinished: %v, %v", last, err)
			}
			return last
		}
		last = res.GetMove()
	}
}

func (w *world) placement(t *testing.T, tenant contextkit.TenantID) (fleet.Placement, bool) {
	t.Helper()
	placements, err := kv.Open[fleet.Placement](t.Context(), w.js, streams.BucketPlacement)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := placements.Get(t.Context(), fleet.PlacementKey(contextkit.KindProjection, tenant))
	if errors.Is(err, kv.ErrNotFound) {
		return fleet.Placement{}, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return kept.Value, true
}

func (w *world) fill(t *testing.T, tenant contextkit.TenantID, count int) {
	t.Helper()
	eventLog, err := journal.Open(t.Context(), w.js)
	if err != nil {
		t.Fatal(err)
	}
	for n := range count {
		err := eventLog.Append(contextkit.TenantContext(t.Context(), tenant), tenant, 0, []journal.Event{{
			ID: contextkit.NewID(), Type: "opened", AggregateType: "wallet", AggregateID: fmt.Sprintf("w%d", n),
			Version: 1, Time: time.Now(), Data: []byte(`{"owner":"ada"}`),
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMove_ContinuesAfterControlNodeCrash(t *testing.T) {
	for _, step := range []string{"planned", "warming", "catching up", "fenced", "flipped", "verifying", "retiring"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w, acme := newWorld(t), natstest.Tenant(t, "acme")
			w.fill(t, acme, 50)
			w.gateway(t, "g1")
			nodes := map[string]*rpc.Tenants{"p1": w.projection(t, "p1", acme), "p2": w.projection(t, "p2", acme)}
			first := w.control(t, "c1", step)
			first.knows(t, 3)
			if step == "planned" {
				first.die() // any control node plans a move; none drives it yet
				natstest.Await(t, first.dead, "the control node dies")
			}
			res, err := first.placements.StartMove(platform(t),
				&controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: "p2"})
			if err != nil {
				t.Fatal(err)
			}
			natstest.Await(t, first.dead, "the control node dies")
			second := w.control(t, "c2", "")
			done := second.end(t, res.GetMove().GetId())
			if done.GetStep() != controlv1.MoveStep_MOVE_STEP_DONE {
				t.Fatalf("the move ended as %v", done)
			}
			var by []string
			for _, entry := range done.GetHistory() {
				by = append(by, entry.GetNode())
			}
			if by[0] != "c1" || by[len(by)-1] != "c2" || len(by) != 8 || !slices.IsSorted(by) {
				t.Errorf("steps entered by %v, want 8: c1's, then c2's", by)
			}
			if p, ok := w.placement(t, acme); !ok || p.Node != "p2" || len(p.Also) > 0 || p.Move != "" {
				t.Errorf("placement of the tenant: %+v", p)
			}
			if nodes["p1"].Serves(acme) || !nodes["p2"].Serves(acme) {
				t.Errorf("served by p1: %v, by p2: %v", nodes["p1"].Serves(acme), nodes["p2"].Serves(acme))
			}
		})
	}
}

func TestMove_RestartedControlNodeWaitsForEveryGateway(t *testing.T) {
	t.Parallel()
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	awake := make(chan struct{})
	w.lateGateway(t, "g1", awake)
	source := w.projection(t, "p1", acme)
	w.projection(t, "p2", acme)
	first := w.control(t, "c1", "flipped")
	first.knows(t, 3)
	res, err := first.placements.StartMove(platform(t),
		&controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: "p2"})
	if err != nil {
		t.Fatal(err)
	}
	natstest.Await(t, first.dead, "the control node dies")
	// Announce enough nodes that reading them takes a moment.
	for n := range 10_000 {
		id := fmt.Sprintf("other-%d", n)
		if _, err := w.js.PublishAsync(
			"$KV."+streams.BucketNodes+"."+id, []byte(`{"id":"`+id+`","kind":"other","endpoint":"127.0.0.1:1"}`),
			jetstream.WithStallWait(time.Minute),
		); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Await(t, w.js.PublishAsyncComplete(), "all nodes are announced")
	second := w.control(t, "c1", "") // the same node, restarted, need not wait for its own lease
	stream, err := second.placements.WatchMove(platform(t), &controlv1.WatchMoveRequest{Id: res.GetMove().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		message, err := stream.Receive()
		if err != nil {
			t.Fatalf("the move continued without the gateway: %v", err)
		}
		if strings.Contains(message.GetMove().GetWaitingFor(), "gateway g1") {
			break
		}
	}
	if !source.Serves(acme) {
		t.Error("the source released a tenant that a gateway still routes to it")
	}
	close(awake)
	if done := second.end(t, res.GetMove().GetId()); done.GetStep() != controlv1.MoveStep_MOVE_STEP_DONE {
		t.Errorf("the move ended as %v", done)
	}
}

func TestAbort_RestoresPlacement(t *testing.T) {
	for _, placed := range []bool{false, true} {
		for n, step := range []string{"planned", "warming", "catching up", "fenced", "flipped", "verifying"} {
			if testing.Short() && placed == (n%2 == 0) {
				continue // each step once
			}
			t.Run(fmt.Sprintf("placement before the move: %v, %s", placed, step), func(t *testing.T) {
				t.Parallel()
				w, acme := newWorld(t), natstest.Tenant(t, "acme")
				w.fill(t, acme, 10)
				w.gateway(t, "g1")
				nodes := map[string]*rpc.Tenants{"p1": w.projection(t, "p1", acme), "p2": w.projection(t, "p2", acme)}
				first := w.control(t, "c1", step)
				first.knows(t, 3)
				if placed {
					if _, err := first.placements.AssignPlacement(
						platform(t),
						&controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "p1"},
					); err != nil {
						t.Fatal(err)
					}
					eventually(t, "p2 releases the tenant", func() bool { return !nodes["p2"].Serves(acme) })
				}
				if step == "planned" {
					first.die()
					natstest.Await(t, first.dead, "the control node dies")
				}
				res, err := first.placements.StartMove(platform(t),
					&controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: "p2"})
				if err != nil {
					t.Fatal(err)
				}
				natstest.Await(t, first.dead, "the control node dies")
				id := res.GetMove().GetId()
				if _, err := first.placements.AbortMove(platform(t), &controlv1.AbortMoveRequest{Id: id}); err != nil {
					t.Fatal(err)
				}
				second := w.control(t, "c2", "")
				if ended := second.end(t, id); ended.GetStep() != controlv1.MoveStep_MOVE_STEP_ABORTED ||
					ended.GetReason() != "aborted" {
					t.Fatalf("the move ended as %v", ended)
				}
				p, ok := w.placement(t, acme)
				if placed && (p.Node != "p1" || len(p.Also) > 0 || p.Move != "") || !placed && ok {
					t.Errorf("placement of the tenant: %+v, %v", p, ok)
				}
				eventually(t, "the nodes serve as before",
					func() bool { return nodes["p1"].Serves(acme) && nodes["p2"].Serves(acme) == !placed })
			})
		}
	}
}

func TestAbort_DuringFlipWaitsForGateways(t *testing.T) {
	t.Parallel()
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	w.fill(t, acme, 10)
	awake := make(chan struct{})
	w.lateGateway(t, "g1", awake)
	w.projection(t, "p1", acme)
	w.projection(t, "p2", acme)
	first := w.control(t, "c1", "fenced")
	first.knows(t, 3)
	if _, err := first.placements.AssignPlacement(
		platform(t), &controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "p1"},
	); err != nil {
		t.Fatal(err)
	}
	res, err := first.placements.StartMove(platform(t),
		&controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: "p2"})
	if err != nil {
		t.Fatal(err)
	}
	natstest.Await(t, first.dead, "the control node dies")
	id := res.GetMove().GetId()
	// It has flipped the placement, and the abort came before it recorded that.
	placements, err := kv.Open[fleet.Placement](t.Context(), w.js, streams.BucketPlacement)
	if err != nil {
		t.Fatal(err)
	}
	key := fleet.PlacementKey(contextkit.KindProjection, acme)
	kept, err := placements.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := placements.Put(
		platform(t), key, fleet.Placement{Node: "p2", Also: []string{"p1"}, Move: id}, kept.Revision,
	); err != nil {
		t.Fatal(err)
	}
	if _, err := first.placements.AbortMove(platform(t), &controlv1.AbortMoveRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	second := w.control(t, "c2", "")
	var back fleet.Placement
	eventually(t, "calls return to the source", func() bool {
		back, _ = w.placement(t, acme)
		return back.Node == "p1"
	})
	if !slices.Equal(back.Also, []string{"p2"}) {
		t.Errorf("p2 released the tenant before gateways route to p1: %+v", back)
	}
	close(awake)
	if ended := second.end(t, id); ended.GetStep() != controlv1.MoveStep_MOVE_STEP_ABORTED {
		t.Fatalf("the move ended as %v", ended)
	}
	if back, _ = w.placement(t, acme); back.Node != "p1" || len(back.Also) > 0 || back.Move != "" {
		t.Errorf("placement of the tenant: %+v", back)
	}
}

func TestGetFleet_ReportsUnresponsiveNodes(t *testing.T) {
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	w.projection(t, "p1", acme)
	w.gateway(t, "g1") // nothing listens at its endpoint
	c := w.control(t, "c1", "")
	c.knows(t, 2)
	res, err := c.fleet.GetFleet(platform(t), &controlv1.GetFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fleet := res.GetFleet()
	gateway, node := fleet.GetNodes()[0], fleet.GetNodes()[1]
	if fleet.GetSilent() != 1 || gateway.GetAnswered() || gateway.GetError() == "" || !node.GetAnswered() ||
		node.GetId() != "p1" || !slices.Equal(node.GetTenants(), []string{"acme"}) {
		t.Errorf("%v", fleet)
	}
}

func TestGetFleet_ReportsLostNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gateway(t, "g1")
	c := w.control(t, "c1", "")
	c.knows(t, 1)
	bucket, err := w.js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	// It announces itself once, and never again.
	if _, err := bucket.Put(
		t.Context(), "ghost",
		[]byte(`{"id":"ghost","kind":"runner","endpoint":"127.0.0.1:1","ready":true,"load":{"calls":7}}`),
	); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ghost is lost", func() bool {
		res, err := c.fleet.GetFleet(platform(t), &controlv1.GetFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		nodes := res.GetFleet().GetNodes()
		last := nodes[len(nodes)-1]
		if last.GetState() != controlv1.NodeState_NODE_STATE_LOST {
			return false
		}
		if last.GetId() != "ghost" || last.GetAnswered() || last.GetError() == "" || last.GetLoad() != nil ||
			last.GetLastAnnounced() == nil || res.GetFleet().GetSilent() != 2 {
			t.Errorf("%v", res.GetFleet())
		}
		return true
	})
}

// A silent node that responds to health checks may have announced that it is ready before it lost NATS: its health
// checks count.
func TestGetFleet_SilentNodeThatRejectsCallsIsNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bucket, err := w.js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	for id, err := range map[string]error{"refuses": errors.New("the journal is not reachable"), "takes": nil} {
		server := rpc.NewServer(rpc.Config{Name: "aggregate", Addr: "127.0.0.1:0"},
			func(context.Context, contextkit.TenantID) error { return err }, zerolog.Nop())
		if err := server.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.run(t, server.Serve)
		node := fmt.Sprintf(`{"id":%q,"kind":"aggregate","endpoint":%q,"ready":true}`, id, server.Addr())
		if _, err := bucket.Put(t.Context(), id, []byte(node)); err != nil {
			t.Fatal(err)
		}
	}
	c := w.control(t, "c1", "")
	c.knows(t, 2)
	want := map[string]controlv1.NodeState{
		"refuses": controlv1.NodeState_NODE_STATE_NOT_READY, "takes": controlv1.NodeState_NODE_STATE_READY,
	}
	eventually(t, "both nodes are silent, and one rejects calls", func() bool {
		res, err := c.fleet.GetFleet(platform(t), &controlv1.GetFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, node := range res.GetFleet().GetNodes() {
			if !node.GetAnswered() || node.GetLastAnnounced() == nil || node.GetState() != want[node.GetId()] ||
				(node.GetReason() == "") != (node.GetId() == "takes") {
				return false
			}
		}
		return true
	})
}

func TestTenants_CreateSuspendAndSetQuota(t *testing.T) {
	t.Parallel()
	w, acme, initech := newWorld(t), natstest.Tenant(t, "acme"), natstest.Tenant(t, "initech")
	served := w.projection(t, "p1", acme)
	c := w.control(t, "c1", "")
	c.knows(t, 1)
	ctx := platform(t)
	if _, err := c.tenants.CreateTenant(
		ctx, &controlv1.CreateTenantRequest{TenantId: "acme"},
	); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("assigned tenant is served: %v", err)
	}
	if _, err := c.tenants.CreateTenant(ctx, &controlv1.CreateTenantRequest{TenantId: "initech"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new tenant is served", func() bool { return served.Serves(initech) })
	if _, err := c.tenants.CreateTenant(
		ctx, &controlv1.CreateTenantRequest{TenantId: "initech"},
	); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("duplicate tenant: %v", err)
	}
	if _, err := c.tenants.SuspendTenant(
		ctx, &controlv1.SuspendTenantRequest{TenantId: "absent"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("unknown tenant: %v", err)
	}
	if _, err := c.tenants.SuspendTenant(
		ctx, &controlv1.SuspendTenantRequest{TenantId: "acme", Reason: "unpaid"},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := c.tenants.SetQuota(
		ctx, &controlv1.SetQuotaRequest{TenantId: "acme", Quota: &controlv1.Quota{Rate: 5}},
	); err != nil {
		t.Fatal(err)
	}
	list, err := c.tenants.ListTenants(ctx, &controlv1.ListTenantsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first := list.GetTenants()[0]
	if len(list.GetTenants()) != 2 || !first.GetSuspended() || first.GetReason() != "unpaid" ||
		first.GetQuota().GetRate() != 5 || !slices.Equal(first.GetNodes(), []string{"p1"}) {
		t.Errorf("%v", list)
	}
	res, err := c.tenants.ResumeTenant(ctx, &controlv1.ResumeTenantRequest{TenantId: "acme"})
	if err != nil || res.GetTenant().GetSuspended() || res.GetTenant().GetQuota().GetRate() != 5 {
		t.Errorf("%v, %v", res, err)
	}
}

func TestModels_CheckCompareAndApplyOnce(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx := platform(t)
	now, err := c.models.GetModel(ctx, &controlv1.GetModelRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(now.GetAggregates()) != 2 ||
		now.GetAggregates()[1].GetCommands()[1].GetSchema().GetFields()["type"].GetStringValue() != "object" {
		t.Errorf("%v", now.GetAggregates())
	}
	old, next := now.GetDocument(), strings.Replace(now.GetDocument().GetText(), "the wallet is open already",
		"it is open", 1)
	broken, err := c.models.CheckModel(ctx, &controlv1.CheckModelRequest{Text: "model: x\nviews: 3\n"})
	if err != nil || len(broken.GetMistakes()) == 0 || broken.GetMistakes()[0].GetLine() == 0 {
		t.Errorf("%v, %v", broken, err)
	}
	good, err := c.models.CheckModel(ctx, &controlv1.CheckModelRequest{Text: next})
	if err != nil || len(good.GetMistakes()) > 0 ||
		!strings.Contains(good.GetDiff(), "+            else: it is open\n") ||
		good.GetRevision() == old.GetRevision() {
		t.Errorf("%v, %v", good, err)
	}
	if _, err := c.models.ApplyModel(
		ctx, &controlv1.ApplyModelRequest{Text: "model: x", ExpectedRevision: old.GetRevision()},
	); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("invalid model: %v", err)
	}
	applied, err := c.models.ApplyModel(ctx,
		&controlv1.ApplyModelRequest{Text: next, ExpectedRevision: old.GetRevision(), Note: "shorter"})
	if err != nil || applied.GetDocument().GetRevision() != good.GetRevision() {
		t.Fatalf("%v, %v", applied, err)
	}
	if _, err := c.models.ApplyModel(
		ctx, &controlv1.ApplyModelRequest{Text: next, ExpectedRevision: old.GetRevision()},
	); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("apply over an outdated revision: %v", err)
	}
	// The model that the platform started with is in the history, and can be applied again.
	list, err := c.models.ListModels(ctx, &controlv1.ListModelsRequest{})
	if err != nil || len(list.GetDocuments()) != 2 || list.GetDocuments()[0].GetNote() != "shorter" ||
		list.GetDocuments()[1].GetRevision() != old.GetRevision() {
		t.Fatalf("%v, %v", list, err)
	}
	back, err := c.models.ApplyModel(ctx,
		&controlv1.ApplyModelRequest{Text: list.GetDocuments()[1].GetText(), ExpectedRevision: good.GetRevision()})
	if err != nil || back.GetDocument().GetRevision() != old.GetRevision() ||
		back.GetDocument().GetText() != old.GetText() {
		t.Fatalf("%v, %v", back, err)
	}
}

func TestCheckModel_HostileDocumentIsMistakeWithLine(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx := platform(t)
	for _, text := range []string{
		"model: m\nworkflows: {w: {on: a.b, steps: &s [{name: x, parallel: *s}]}}\n",
		"model: m\nx: &a [1, 1]\n" + strings.Repeat("y: [", 70) + strings.Repeat("]", 70),
		"model: m\n" + strings.Repeat("\n", 500_000),
	} {
		res, err := c.models.CheckModel(ctx, &controlv1.CheckModelRequest{Text: text})
		if err != nil || len(res.GetMistakes()) == 0 || res.GetMistakes()[0].GetLine() == 0 {
			t.Errorf("%.60q: %v, %v", text, res.GetMistakes(), err)
		}
		if _, err := c.models.ApplyModel(
			ctx, &controlv1.ApplyModelRequest{Text: text, ExpectedRevision: "x"},
		); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%.60q was applied: %v", text, err)
		}
	}
}

func TestGetTimeline_ByAnyOfItsIDs(t *testing.T) {
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	recorder, err := timeline.New(w.js)
	if err != nil {
		t.Fatal(err)
	}
	w.run(t, func(ctx context.Context) error { return recorder.Run(ctx, "n1") })
	call := contextkit.TenantContext(t.Context(), acme)
	rc, _ := contextkit.FromContext(call)
	further := rc
	further.RequestID = contextkit.NewID()
	began := time.Now()
	recorder.Record(contextkit.NewContext(call, further), timeline.Span{
		Kind:    timeline.KindStep,
		Name:    "transfer debit",
		Started: began.Add(time.Second),
		Code:    "done",
	})
	recorder.Record(call, timeline.Span{
		Kind:    timeline.KindCall,
		Name:    "/a/B",
		Started: began,
		Code:    "ok",
	})
	c := w.control(t, "c1", "")
	for what, id := range map[string]string{
		"correlation": rc.CorrelationID, "trace": rc.TraceID.String(), "request": further.RequestID,
	} {
		eventually(t, "both spans are found by the "+what+" id", func() bool {
			res, err := c.timeline.GetTimeline(call, &controlv1.GetTimelineRequest{TenantId: "acme", Id: id})
			return err == nil && len(res.GetSpans()) == 2 && res.GetSpans()[0].GetKind() == "call" &&
				res.GetSpans()[1].GetNode() == "n1" && res.GetCorrelationId() == rc.CorrelationID
		})
	}
	w.run(t, func(ctx context.Context) error {
		node := fleet.Node{
			ID:       "a1",
			Kind:     contextkit.KindAggregate,
			Endpoint: "127.0.0.1:1",
			Tenants:  []string{"acme", "globex"},
		}
		return fleet.Announce(ctx, w.js, node, func(context.Context, *fleet.Node) error { return nil })
	})
	// The call is named for its command; a later one, of a step, does not change that.
	recorder.Record(call, timeline.Span{
		Kind:    timeline.KindCommand,
		Name:    "deposit",
		Subject: "wallet/w1",
		Started: began.Add(time.Millisecond),
		Code:    "ok",
	})
	recorder.Record(contextkit.NewContext(call, further), timeline.Span{
		Kind:    timeline.KindCommand,
		Name:    "withdraw",
		Subject: "wallet/w2",
		Started: began.Add(2 * time.Second),
		Code:    "ok",
	})
	broken := contextkit.TenantContext(t.Context(), acme)
	brokenID := contextkit.In(broken).CorrelationID
	recorder.Record(broken, timeline.Span{
		Kind:    timeline.KindCall,
		Name:    "/a/C",
		Started: began,
		Code:    "ok",
	})
	recorder.Record(broken, timeline.Span{
		Kind:    timeline.KindStep,
		Name:    "transfer credit",
		Started: began.Add(time.Second),
		Code:    timeline.Failed,
	})
	list := func(ctx context.Context, req *controlv1.ListTimelinesRequest) string {
		res, err := c.timeline.ListTimelines(ctx, req)
		if err != nil {
			return err.Error()
		}
		text := fmt.Sprint(res.GetComplete())
		for _, one := range res.GetTimelines() {
			name := map[string]string{rc.CorrelationID: "first", brokenID: "second"}[one.GetCorrelationId()]
			text += fmt.Sprint(" ", name, " ", one.GetKind(), " ", one.GetName(), one.GetSubject(), " ", one.GetCode(),
				" ", one.GetFailedName(), one.GetSpans())
		}
		return text
	}
	eventually(t, "both timelines are listed, the newest first", func() bool {
		return list(call, &controlv1.ListTimelinesRequest{}) ==
			"true second call /a/C failed transfer credit2 first command depositwallet/w1 ok 4"
	})
	for want, req := range map[string]*controlv1.ListTimelinesRequest{
		"true second call /a/C failed transfer credit2":  {FailedOnly: true},
		"false second call /a/C failed transfer credit2": {Limit: 1, TenantId: "acme"},
	} {
		if got := list(call, req); got != want {
			t.Errorf("%v: %s, want %s", req, got, want)
		}
	}
	other := contextkit.TenantContext(t.Context(), natstest.Tenant(t, "globex"))
	if got := list(other, &controlv1.ListTimelinesRequest{}); got != "true" {
		t.Errorf("timelines visible to another tenant: %s", got)
	}
	for _, id := range []string{rc.CorrelationID, "*", ">"} {
		if res, err := c.timeline.GetTimeline(
			other, &controlv1.GetTimelineRequest{Id: id},
		); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("spans visible to another tenant by %q: %v, %v", id, res, err)
		}
	}
}

func TestAudit_IsPagedBackwardsAndFollowed(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx, cancel := context.WithCancel(platform(t))
	defer cancel()
	stream, err := c.audit.FollowAudit(ctx, &controlv1.FollowAuditRequest{Decision: "denied"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if res, err := stream.Receive(); err != nil || res.GetRecord() != nil {
		t.Fatalf("%v, %v", res, err)
	}
	publish := func(tenant, decision string, n int) {
		data, err := json.Marshal(auditlog.Record{
			Time:      time.Now(),
			Decision:  decision,
			Tenant:    tenant,
			Procedure: fmt.Sprintf("/x.Y/M%d", n),
			Principal: "ada",
		})
		if err == nil {
			// Half of the records are where earlier versions stored them.
			subject := []string{
				"audit." + tenant, auditlog.Subject(streams.Account(tenant), auditlog.ClassOperator),
			}[n/2%2]
			_, err = w.js.Publish(t.Context(), subject, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1200 {
		publish([]string{"acme", "globex"}[n%2], "allowed", n)
	}
	// The consumer may start with records after its first message.
	records := make(chan *controlv1.AuditRecord, 1)
	go func() {
		for {
			res, err := stream.Receive()
			if err != nil {
				return
			}
			select {
			case records <- res.GetRecord():
			case <-ctx.Done():
				return
			}
		}
	}()
	eventually(t, "a denial is received", func() bool {
		publish("acme", "denied", 7)
		select {
		case record := <-records:
			return record.GetProcedure() == "/x.Y/M7"
		default:
			return false
		}
	})
	publish("acme", "denied", 9)
	next := ""
	for n := 0; n < 1000 && next != "/x.Y/M9"; n++ { // the first denial was published at most that often
		next = natstest.Await(t, records, "the next denial").GetProcedure()
	}
	if next != "/x.Y/M9" {
		t.Errorf("%s is received again and again", next)
	}
	var seen []string
	req := &controlv1.QueryAuditRequest{TenantId: "acme", Decision: "allowed", PageSize: 250}
	for {
		res, err := c.audit.QueryAudit(platform(t), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range res.GetRecords() {
			if record.GetTenantId() != "acme" {
				t.Fatalf("%v", record)
			}
			seen = append(seen, record.GetProcedure())
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(seen) != 600 || seen[0] != "/x.Y/M1198" || seen[599] != "/x.Y/M0" ||
		len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 600 {
		t.Errorf("%d records, from %v to %v", len(seen), seen[0], seen[len(seen)-1])
	}
}

// A query of changes has the allowed calls of methods that may change something, also of records that do not state
// it, and one until a time has the records before it, in every page.
func TestQueryAudit_ChangesOnlyAndUntil(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	for n, record := range []auditlog.Record{
		{Decision: "allowed", Procedure: "/x.Y/Change1"},
		{Decision: "allowed", Procedure: "/x.Y/Read", Read: true},
		{Decision: "allowed", Procedure: "/control.v1.FleetService/GetFleet"},
		{Decision: "denied", Procedure: "/x.Y/Denied"},
		{Decision: "allowed", Procedure: "/control.v1.TenantService/SetQuota"},
		{Decision: "allowed", Procedure: "/x.Y/Change2"},
	} {
		record.Time, record.Tenant = began.Add(time.Duration(n)*time.Minute), "acme"
		data, err := json.Marshal(record)
		if err == nil {
			_, err = w.js.Publish(t.Context(),
				auditlog.Subject(streams.Account("acme"), auditlog.ClassOperator), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(minutes int) *timestamppb.Timestamp {
		return timestamppb.New(began.Add(time.Duration(minutes) * time.Minute))
	}
	for want, req := range map[string]*controlv1.QueryAuditRequest{
		"Change2 SetQuota Change1": {ChangesOnly: true},
		"SetQuota Change1":         {ChangesOnly: true, Until: at(5)},
		"SetQuota":                 {ChangesOnly: true, Since: at(1), Until: at(5)},
		"Read Change1":             {Until: at(2)},
		"Change2 SetQuota Denied GetFleet Read Change1": {Until: at(6)},
		"Denied": {Decision: "denied", Until: at(6)},
		"":       {ChangesOnly: true, Since: at(1), Until: at(4)},
	} {
		for _, size := range []int32{1, 100} {
			query := proto.CloneOf(req)
			query.TenantId, query.PageSize = "acme", size
			var got []string
			for {
				res, err := c.audit.QueryAudit(platform(t), query)
				if err != nil {
					t.Fatal(err)
				}
				for _, record := range res.GetRecords() {
					got = append(got, record.GetProcedure()[strings.LastIndex(record.GetProcedure(), "/")+1:])
				}
				if query.PageToken = res.GetNextPageToken(); query.PageToken == "" {
					break
				}
			}
			if text := strings.Join(got, " "); text != want {
				t.Errorf("%v, pages of %d: got %q, want %q", req, size, text, want)
			}
		}
	}
}

// A gateway whose clock is behind hides no records that others have stored before its own.
func TestQueryAudit_SinceIsIndependentOfOrderOfStorage(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	since := time.Now().Add(-time.Minute)
	for _, record := range []auditlog.Record{
		{Time: time.Now(), Procedure: "/x.Y/First"},
		{Time: time.Now().Add(-time.Hour), Procedure: "/x.Y/Behind"},
		{Time: time.Now(), Procedure: "/x.Y/Last"},
	} {
		record.Decision, record.Tenant = "allowed", "acme"
		data, err := json.Marshal(record)
		if err == nil {
			_, err = w.js.Publish(t.Context(),
				auditlog.Subject(streams.Account("acme"), auditlog.ClassOperator), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.audit.QueryAudit(platform(t),
		&controlv1.QueryAuditRequest{TenantId: "acme", Since: timestamppb.New(since)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, record := range res.GetRecords() {
		got = append(got, record.GetProcedure())
	}
	if text := strings.Join(got, " "); text != "/x.Y/Last /x.Y/First" {
		t.Errorf("got %q, want the records of the last minute", text)
	}
}

func TestListModels_EndsAtByteLimit(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx := platform(t)
	documents, err := kv.Open[models.Document](ctx, w.js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	var revision uint64
	for n := range 5 {
		document := models.Document{Text: "model: m\n# " + strings.Repeat("x", 400_000), Revision: fmt.Sprint(n)}
		if revision, err = documents.Put(ctx, models.Key, document, revision); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.models.ListModels(ctx, &controlv1.ListModelsRequest{})
	if err != nil || len(list.GetDocuments()) != 5 {
		t.Fatalf("%d documents, %v", len(list.GetDocuments()), err)
	}
	if size := proto.Size(list); size > 1<<20 {
		t.Errorf("response of %d bytes", size)
	}
	for n, document := range list.GetDocuments() {
		if document.GetRevision() != fmt.Sprint(4-n) || (document.GetText() != "") != (n < 2) {
			t.Errorf("document %d: %s with %d bytes of text", n, document.GetRevision(), len(document.GetText()))
		}
	}
}
