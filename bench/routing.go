package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/streams"
)

type routingCommand struct {
	Tenants   int           `default:"100000" help:"Tenants, each placed."`
	Endpoints int           `default:"1000" help:"Endpoints that they are placed on."`
	Callers   int           `default:"32" help:"Concurrent callers."`
	Rounds    int           `default:"5" help:"Rounds of each number of tenants."`
	Length    time.Duration `default:"2s" help:"Length of a turn."`
	Churn     int           `default:"200" help:"Placements changed per second while one is timed."`
	Samples   int           `default:"300" help:"Changes that are timed."`
}

// Run measures the cost of routing with many tenants, and the time until a change of a placement takes effect.
func (c *routingCommand) Run(ctx context.Context) (err error) {
	a, err := startArena(ctx, "headgate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	endpoints, end, err := serveMany(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer end()
	nodes := make([]string, len(endpoints))
	for i, endpoint := range endpoints {
		nodes[i] = fmt.Sprintf(`{id: %s, kind: projection, endpoint: "%s"}`, nodeName(i), endpoint)
	}
	gateway, err := a.startHeadgate(ctx, prepared{
		tenant: "*",
		rights: []string{"query.read", "gateway.explain"},
		limits: boundless,
		nodes:  strings.Join(nodes, ", "),
		more:   fmt.Sprintf("  upstream: {max_endpoints: %d}\n  probes: {every: 1m}\n", c.Endpoints+24),
	})
	if err != nil {
		return err
	}
	r := &routing{routingCommand: c, arena: a, gateway: gateway}
	if err := r.connect(); err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("%s · %d cores · %d tenants placed on %d endpoints\n\n", runtime.Version(), runtime.NumCPU(), c.Tenants,
		c.Endpoints)
	if err := r.fill(ctx); err != nil {
		return err
	}
	if err := r.cost(ctx); err != nil {
		return err
	}
	return r.propagation(ctx)
}

func nodeName(n int) string     { return fmt.Sprintf("n%d", n) }
func numbered(n int) string     { return fmt.Sprintf("tenant-%d", n) }
func placementKey(n int) string { return "projection." + numbered(n) }

// serveMany serves on a number of addresses of this machine.
func serveMany(ctx context.Context, count int) (endpoints []string, end func(), err error) {
	res, err := answer("one")
	if err != nil {
		return nil, nil, err
	}
	wire, err := proto.Marshal(res)
	if err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			if method, _ := grpc.MethodFromServerStream(stream); method != gatewayv1connect.QueryServiceQueryProcedure {
				return stream.SendMsg([]byte{8, 1}) // grpc.health.v1: SERVING
			}
			return stream.SendMsg(wire)
		}),
	)
	port := "0"
	for n := range count {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.%d.%d.1:%s", 1+n/250, 1+n%250, port))
		if err != nil {
			server.Stop()
			return nil, nil, err
		}
		_, port, _ = strings.Cut(listener.Addr().String(), ":")
		endpoints = append(endpoints, listener.Addr().String())
		go func() { _ = server.Serve(listener) }() // ends with Stop
	}
	return endpoints, server.Stop, nil
}

// routing is the measured gateway with its nodes.
type routing struct {
	*routingCommand
	*arena
	gateway *process
	nats    *nats.Conn
	js      jetstream.JetStream
	conns   []*grpc.ClientConn
}

func (r *routing) connect() (err error) {
	if r.nats, err = nats.Connect("nats://" + r.addrs["nats"]); err != nil {
		return err
	}
	if r.js, err = jetstream.New(r.nats, jetstream.WithPublishAsyncMaxPending(1024)); err != nil {
		return err
	}
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+r.addrs["headgate-grpc"],
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		r.conns = append(r.conns, conn)
	}
	return nil
}

func (r *routing) close() {
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.nats.Close()
}

// place places a tenant on a node, and returns when the placement is stored.
func (r *routing) place(ctx context.Context, tenant, node int) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(fleet.Placement{Node: nodeName(node)})
	if err != nil {
		return nil, err
	}
	msg := &nats.Msg{
		Subject: "$KV." + streams.BucketPlacement + "." + placementKey(tenant),
		Header:  nats.Header{},
		Data:    data,
	}
	if err := contextkit.InjectNATS(contextkit.PlatformContext(ctx), msg.Header); err != nil {
		return nil, err
	}
	return r.js.PublishMsgAsync(msg)
}

// fill places all tenants.
func (r *routing) fill(ctx context.Context) error {
	before, err := r.gateway.resident()
	if err != nil {
		return err
	}
	began := time.Now()
	for n := range r.Tenants {
		if _, err := r.place(ctx, n, n%r.Endpoints); err != nil {
			return err
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	kept := time.Since(began)
	if err := r.routed(ctx, r.Tenants-1, (r.Tenants-1)%r.Endpoints); err != nil {
		return err
	}
	after, err := r.gateway.resident()
	if err != nil {
		return err
	}
	fmt.Printf(
		"Placing all of them took NATS %.1f s; the gateway routed by the last one %.0f ms after it was stored, and "+
			"had %.0f MiB more than before (%.0f to %.0f).\n\n",
		kept.Seconds(), 1000*(time.Since(began)-kept).Seconds(), float64(after-before)/(1<<20), float64(before)/(1<<20),
		float64(after)/(1<<20),
	)
	return nil
}

// routed waits until a tenant's calls are routed to the node.
func (r *routing) routed(ctx context.Context, tenant, node int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		name, err := r.query(ctx, r.conns[0], tenant, true)
		if err != nil || name == nodeName(node) {
			return err
		}
	}
}

// query sends a call. If node is set, it returns the node that answered.
func (r *routing) query(ctx context.Context, conn *grpc.ClientConn, tenant int, explain bool) (string, error) {
	request, err := proto.Marshal(&projectionv1.QueryRequest{View: "one"})
	if err != nil {
		return "", err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.token, contextkit.HeaderTenantID,
		numbered(tenant))
	if explain {
		ctx = metadata.AppendToOutgoingContext(ctx, contextkit.HeaderExplain, "1")
	}
	var out []byte
	var header metadata.MD
	if err := conn.Invoke(
		ctx, gatewayv1connect.QueryServiceQueryProcedure, request, &out, grpc.ForceCodecV2(raw{}),
		experimental.AcceptCompressors(plainName), grpc.Header(&header),
	); err != nil || !explain {
		return "", err
	}
	var decision struct{ Node string }
	if err := json.Unmarshal([]byte(strings.Join(header.Get(contextkit.HeaderDecision), "")), &decision); err != nil {
		return "", fmt.Errorf("the answer does not name the node: %w", err)
	}
	return decision.Node, nil
}

// few is the number of endpoints of the loads on few endpoints.
const few = 10

// calling is a load: calls of a number of tenants, which are placed on a number of endpoints.
type calling struct{ tenants, endpoints int }

// tenant returns the tenant with a number, from 0.
func (c calling) tenant(n, endpoints int) int { return n/c.endpoints*endpoints + n%c.endpoints }

// loads returns loads of increasing numbers of tenants, on few endpoints and then on all.
func (r *routing) loads() (loads []calling) {
	for _, endpoints := range []int{min(few, r.Endpoints), r.Endpoints} {
		for n := endpoints; n <= r.Tenants/r.Endpoints*endpoints; n *= 10 {
			loads = append(loads, calling{n, endpoints})
		}
	}
	return loads
}

// cost measures the calls of each load.
func (r *routing) cost(ctx context.Context) error {
	loads := r.loads()
	cpu, rates := make([][]float64, len(loads)), make([][]float64, len(loads))
	for round := range r.Rounds + 1 { // the first warms up
		for i, load := range loads {
			var turn atomic.Int64
			used, err := r.gateway.cpu()
			if err != nil {
				return err
			}
			began := time.Now()
			made, err := saturate(ctx, func(ctx context.Context) error {
				_, err := r.query(ctx, r.conns[turn.Add(1)%int64(len(r.conns))],
					load.tenant(rand.IntN(load.tenants), r.Endpoints), false)
				return err
			}, r.Callers, r.Length)
			if err != nil {
				return err
			}
			now, err := r.gateway.cpu()
			if err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			cpu[i] = append(cpu[i], float64((now-used).Microseconds())/float64(made))
			rates[i] = append(rates[i], float64(made)/time.Since(began).Seconds())
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, r.Rounds)
	}
	fmt.Printf("| tenants that call | endpoints | calls/s | CPU µs per call |\n|---|---|---|---|\n")
	for i, load := range loads {
		fmt.Printf("| %d | %d | %.0f (%.0f to %.0f) | %.0f (%.0f to %.0f) |\n", load.tenants, load.endpoints,
			median(rates[i]), slices.Min(rates[i]), slices.Max(rates[i]), median(cpu[i]), slices.Min(cpu[i]),
			slices.Max(cpu[i]))
	}
	fmt.Println()
	return nil
}

// propagation measures the delay of changes while other placements change.
func (r *routing) propagation(ctx context.Context) error {
	churn, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(time.Second / time.Duration(r.Churn))
		defer ticker.Stop()
		for {
			select {
			case <-churn.Done():
				ended <- nil
				return
			case <-ticker.C:
			}
			// The timed tenants are the last; these are the others.
			if _, err := r.place(churn, rand.IntN(r.Tenants-r.Samples), rand.IntN(r.Endpoints)); err != nil &&
				churn.Err() == nil {
				ended <- err
				return
			}
		}
	}()
	took := newTimes()
	used, err := r.gateway.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for n := range r.Samples {
		tenant := r.Tenants - 1 - n
		node := (tenant + 1) % r.Endpoints
		kept, err := r.place(ctx, tenant, node)
		if err != nil {
			return err
		}
		select {
		case <-kept.Ok():
		case err := <-kept.Err():
			return err
		}
		at := time.Now()
		if err := r.routed(ctx, tenant, node); err != nil {
			return err
		}
		took.add(time.Since(at))
	}
	now, err := r.gateway.cpu()
	if err != nil {
		return err
	}
	stop()
	fmt.Printf(
		"A stored placement takes effect at the gateway after %.1f ms (p50) and %.1f ms (p99), the answer of the "+
			"first call that it routes included, while %d others per second change; the gateway uses %.0f %% of a "+
			"core.\n",
		took.at(50), took.at(99), r.Churn, 100*(now-used).Seconds()/time.Since(began).Seconds(),
	)
	return <-ended
}
