package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	_ "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

type submitCommand struct {
	Callers int           `default:"64" help:"Concurrent callers."`
	Rounds  int           `default:"5" help:"Rounds of each."`
	Length  time.Duration `default:"3s" help:"Length of a round."`
	Only    string        `enum:",submit,apart,raw,direct,relayed" default:"" help:"Run this contender only."`
	Sync    string        `enum:",lazy,always" default:"" help:"Measure only with this way of syncing of NATS."`
}

// Run prints a table.
func (c *submitCommand) Run(ctx context.Context) error {
	fmt.Printf("| %d callers | calls/s | share of raw | CPU µs per call |\n|---|---|---|---|\n", c.Callers)
	for _, lazy := range []bool{true, false} {
		if c.Sync != "" && lazy != (c.Sync == "lazy") {
			continue
		}
		rates, cost, err := c.measure(ctx, lazy)
		if err != nil {
			return err
		}
		what := "every write synced"
		if lazy {
			what = "the system syncs"
		}
		fmt.Printf("| **%s** | | | |\n", what)
		for _, way := range ways {
			if len(rates[way.name]) == 0 {
				continue
			}
			share := "–"
			if raw := rates["raw"]; len(raw) > 0 && way.name != "raw" {
				share = fmt.Sprintf("%.0f %%", 100*median(rates[way.name])/median(raw))
			}
			fmt.Printf("| %s | %s | %s | %.0f |\n", way.title, spread(rates[way.name]), share, median(cost[way.name]))
		}
	}
	return nil
}

// ways are the contenders.
var ways = []struct{ name, title string }{
	{"raw", "raw JetStream"},
	{"direct", "one gRPC call and a publish"},
	{"relayed", "two gRPC calls and a publish"},
	{"submit", "Submit, one process"},
	{"apart", "Submit, gateway and node apart"},
}

// measure starts a platform of one node and runs the contenders in turn. It returns the calls per second of each, and
// the CPU time per call in microseconds, which includes client and NATS.
func (c *submitCommand) measure(ctx context.Context, lazy bool) (rates, cost map[string][]float64, err error) {
	p, err := startPlatform(ctx, lazy)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	bare, err := p.startRelay(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	run := map[string]func(ctx context.Context, until time.Time) (float64, error){
		"raw": func(ctx context.Context, until time.Time) (float64, error) { return p.raw(ctx, c.Callers, until) },
		"direct": func(ctx context.Context, until time.Time) (float64, error) {
			return bare.call(ctx, bare.node, c.Callers, until)
		},
		"relayed": func(ctx context.Context, until time.Time) (float64, error) {
			return bare.call(ctx, bare.gateway, c.Callers, until)
		},
		"submit": func(ctx context.Context, until time.Time) (float64, error) {
			return p.submit(ctx, p.within, c.Callers, until)
		},
		"apart": func(ctx context.Context, until time.Time) (float64, error) {
			return p.submit(ctx, p.apart, c.Callers, until)
		},
	}
	cost = map[string][]float64{}
	var contenders []contender
	for _, way := range ways {
		if c.Only != "" && way.name != c.Only {
			continue
		}
		contenders = append(
			contenders, contender{way.name, func(ctx context.Context, until time.Time) (float64, error) {
				before := processorTime()
				n, err := run[way.name](ctx, until)
				cost[way.name] = append(cost[way.name], float64((processorTime()-before).Nanoseconds())/1e3/max(n, 1))
				return n, err
			}},
		)
	}
	rates, err = contest(ctx, c.Rounds, c.Length, contenders...)
	return rates, cost, err
}

// processorTime returns the CPU time that this process has used.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // RUSAGE_SELF is always valid
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// platform is an aggregate node with two gateways, all in this process.
type platform struct {
	dir      string
	embedded *natsserver.Embedded
	conn     *nats.Conn
	js       jetstream.JetStream
	tenant   contextkit.TenantID
	token    string
	// within is the address of the gateway that calls the node in process, as dev does, and apart the address of
	// the gateway that calls it by gRPC.
	within, apart string
	stop          context.CancelFunc
	running       errgroup.Group
}

func startPlatform(ctx context.Context, lazy bool) (_ *platform, err error) {
	p := &platform{}
	if p.dir, err = os.MkdirTemp("", "headgate-bench"); err != nil {
		return nil, err
	}
	if p.embedded, err = natsserver.Start(
		ctx, natsserver.Config{Dir: filepath.Join(p.dir, "nats"), LazySync: lazy},
	); err != nil {
		return nil, err
	}
	if p.conn, err = p.embedded.Connect("bench"); err != nil {
		return nil, err
	}
	if p.js, err = jetstream.New(p.conn); err != nil {
		return nil, err
	}
	if err := setup.Ensure(ctx, p.js, 1); err != nil {
		return nil, err
	}
	models, err := model.Open(ctx, model.Wallet)
	if err != nil {
		return nil, err
	}
	tenants, err := rpc.ParseTenants([]string{"bench"})
	if err != nil {
		return nil, err
	}
	p.tenant = tenants.All()[0]
	service, err := aggregate.New(ctx, aggregate.Config{Synced: !lazy}, p.js, models, tenants, nil)
	if err != nil {
		return nil, err
	}
	server := rpc.NewServer(rpc.Config{Name: "aggregate", Addr: "127.0.0.1:0", GRPC: "127.0.0.1:0"}, service.Ready,
		zerolog.Nop())
	service.Register(server.RPC)
	if err := server.Listen(ctx); err != nil {
		return nil, err
	}
	issuer, err := auth.OpenIssuer(filepath.Join(p.dir, "key.json"), "bench", "bench")
	if err != nil {
		return nil, err
	}
	accepted, err := issuer.Config(ctx)
	if err != nil {
		return nil, err
	}
	principal, err := auth.NewPrincipal("bench", []string{"bench"}, []string{"command.submit"})
	if err != nil {
		return nil, err
	}
	if p.token, err = issuer.Issue(principal, time.Hour); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	p.running.Go(func() error { return server.Serve(running) })
	if p.apart, err = p.gateway(ctx, running, accepted, server, nil); err != nil {
		return nil, err
	}
	node := server.InProcess(frame.GRPCCodec{})
	p.within, err = p.gateway(ctx, running, accepted, server, func(string) upstream.Opener { return node })
	return p, err
}

// gateway runs a gateway for the node until running ends, and returns its gRPC address. All stages are enabled; the
// tenant's quota is not reached.
func (p *platform) gateway(
	ctx, running context.Context, accepted auth.Config, node *rpc.Server, local func(string) upstream.Opener,
) (string, error) {
	catalog, err := policy.NewCatalog()
	if err != nil {
		return "", err
	}
	routes := route.NewTable()
	if err := routes.Replace(
		[]route.Node{{ID: "aggregate-1", Kind: "aggregate", Endpoint: node.GRPCAddr(), Ready: true}}, nil,
	); err != nil {
		return "", err
	}
	edge, err := gateway.New(gateway.Config{
		Listen:   rpc.Config{Name: "gateway", Addr: "127.0.0.1:0", GRPC: "127.0.0.1:0"},
		Auth:     accepted,
		Limits:   limit.Config{Rate: 1e6, Concurrent: 4096},
		Upstream: upstream.PoolConfig{Local: local},
	}, catalog, routes, p.js, zerolog.Nop())
	if err != nil {
		return "", err
	}
	if err := edge.Listen(ctx); err != nil {
		return "", err
	}
	p.running.Go(func() error { return edge.Serve(running) })
	return edge.GRPCAddr(), nil
}

func (p *platform) close() error {
	p.stop()
	err := p.running.Wait()
	p.conn.Close()
	p.embedded.Close()
	return errors.Join(err, os.RemoveAll(p.dir))
}

// raw only publishes the messages of deposits' events, with the same headers, expected sequence and message id as
// Submit.
func (p *platform) raw(ctx context.Context, callers int, until time.Time) (float64, error) {
	var done atomic.Int64
	var group errgroup.Group
	for range callers {
		group.Go(func() error {
			id := uuid.NewString()
			last := uint64(0)
			for n := 1; time.Now().Before(until); n++ {
				var err error
				if last, err = p.publish(ctx, id, n, last); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(done.Load()), err
}

// publish publishes a deposit's event after the event with the sequence last, and returns its sequence.
func (p *platform) publish(ctx context.Context, id string, version int, last uint64) (uint64, error) {
	ctx = contextkit.TenantContext(ctx, p.tenant)
	msg := &nats.Msg{
		Subject: streams.EventSubject(p.tenant, "raw", id),
		Header:  nats.Header{},
		Data:    []byte(`{"amount":1,"reference":""}`),
	}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return 0, err
	}
	event := uuid.NewString()
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": event, "ce-source": "/tenants/bench/raw/" + id, "ce-type": "deposited",
		"ce-time":      time.Now().UTC().Format(time.RFC3339Nano),
		"content-type": "application/json", "ce-aggregateversion": fmt.Sprint(version), "ce-aggregatetype": "raw",
		"ce-aggregateid":    id,
		"ce-idempotencykey": event, "ce-commandfingerprint": "0123456789abcdef0123456789abcdef",
		jetstream.MsgIDHeader: "bench/" + event, jetstream.ExpectedLastSubjSeqHeader: fmt.Sprint(last),
	} {
		msg.Header.Set(name, value)
	}
	ack, err := p.js.PublishMsg(ctx, msg)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// submit sends deposits through a gateway, each caller to its own wallet.
func (p *platform) submit(ctx context.Context, gateway string, callers int, until time.Time) (float64, error) {
	conn, err := grpc.NewClient("passthrough:///"+gateway, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token)
	var done atomic.Int64
	var group errgroup.Group
	for range callers {
		group.Go(func() error {
			id := uuid.NewString()
			call := func(command string, payload map[string]any) error {
				object, err := structpb.NewStruct(payload)
				if err != nil {
					return err
				}
				var res aggregatev1.SubmitResponse
				return conn.Invoke(ctx, "/aggregate.gateway.v1.CommandService/Submit", &aggregatev1.SubmitRequest{
					AggregateType:  "wallet",
					AggregateId:    id,
					Command:        command,
					Payload:        object,
					IdempotencyKey: uuid.NewString(),
				}, &res)
			}
			if err := call("open", map[string]any{"owner": "bench"}); err != nil {
				return err
			}
			for time.Now().Before(until) {
				if err := call("deposit", map[string]any{"amount": 1}); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err = group.Wait()
	return float64(done.Load()), err
}
