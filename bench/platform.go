package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

type platformCommand struct {
	Watchers []int         `default:"1,100,1000" help:"Numbers of watchers of the view, with a run for each."`
	Rate     float64       `default:"20" help:"Commands per second."`
	Length   time.Duration `default:"10s" help:"Length of a run."`
	Plots    string        `type:"path" help:"Directory for plots (PNG)."`
}

// platformWallets is the number of aggregates that the commands change.
const platformWallets = 20

// Run measures the whole platform, started with `headgate dev`: the time from a command to its acknowledgement, to a
// query that returns the changed row, and to the watchers that receive it.
func (c *platformCommand) Run(ctx context.Context) (err error) {
	a, err := startArena(ctx, "headgate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	p := &wholePlatform{arena: a, made: map[string]int{}}
	if err := p.start(ctx); err != nil {
		return err
	}
	fmt.Printf("%s · %d cores · every write synced · %.0f commands per second\n\n", runtime.Version(), runtime.NumCPU(),
		c.Rate)
	fmt.Printf(
		"| watchers | acknowledged after p50 / p99 | read with its position after p50 / p99 | watched after the " +
			"acknowledgement p50 / p99 / max | changes delivered per second | CPU of all roles | resident " +
			"|\n|---|---|---|---|---|---|---|\n",
	)
	names, plotted := []string{}, map[string][]float64{}
	for _, watchers := range c.Watchers {
		row, err := p.run(ctx, watchers, c.Rate, c.Length)
		if err != nil {
			return fmt.Errorf("%d watchers: %w", watchers, err)
		}
		fmt.Printf(
			"| %d | %.1f / %.1f ms | %.1f / %.1f ms | %.1f / %.1f / %.1f ms | %.0f | %.0f %% of a core | %.0f MiB |\n",
			watchers, row.acknowledged.at(50), row.acknowledged.at(99), row.read.at(50), row.read.at(99),
			row.watched.at(50), row.watched.at(99), row.watched.at(100), row.delivered, 100*row.cpu, row.memory/(1<<20),
		)
		names = append(names, fmt.Sprintf("%d watchers", watchers))
		for what, times := range map[string]*times{
			"acknowledged": row.acknowledged, "read with its position": row.read,
			"watched, after the acknowledgement": row.watched,
		} {
			plotted[what] = append(plotted[what], times.at(99))
		}
	}
	if c.Plots == "" {
		return nil
	}
	return plotSeries(filepath.Join(c.Plots, "platform.png"), "From a command to its row, p99 in ms", names, plotted)
}

// times is a histogram of durations. It is safe for concurrent use.
type times struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram
}

func newTimes() *times { return &times{hist: newHistogram()} }

func (t *times) add(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.hist.RecordValue(max(took.Microseconds(), 1)) // within the range
}

// at returns a quantile, 0 to 100, in milliseconds.
func (t *times) at(quantile float64) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ms(t.hist, quantile)
}

// wholePlatform runs all roles in one process.
type wholePlatform struct {
	*arena
	process *process
	ctx     func(context.Context) context.Context // adds the credential and the tenant
	conns   []*grpc.ClientConn
	made    map[string]int // number of deposits by wallet
}

// platformRow contains the results of a run.
type platformRow struct {
	acknowledged, read, watched *times
	delivered, cpu, memory      float64
}

func (p *wholePlatform) start(ctx context.Context) (err error) {
	listen := func(flag string) string {
		addr, failed := freeAddr(ctx)
		err = errors.Join(err, failed)
		return "--" + flag + "=" + addr
	}
	args := []string{
		"dev", "--data=" + filepath.Join(p.dir, "data"), "--listen=" + p.addrs["headgate"],
		"--grpc-listen=" + p.addrs["headgate-grpc"], "--admin-listen=" + p.addrs["headgate-admin"],
		listen("aggregate-listen"), listen("projection-listen"), listen("runner-listen"), listen("control-listen"),
	}
	if err != nil {
		return err
	}
	if p.process, err = p.arena.start(ctx, "headgate", "headgate", args...); err != nil {
		return err
	}
	if p.token, err = p.issue(ctx, filepath.Join(p.dir, "data"), "acme", "query.read", "command.submit"); err != nil {
		return err
	}
	p.ctx = func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token, contextkit.HeaderTenantID,
			"acme")
	}
	for range 10 {
		conn, err := grpc.NewClient("passthrough:///"+p.addrs["headgate-grpc"],
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		p.conns = append(p.conns, conn)
	}
	for n := range platformWallets {
		if err := p.submit(ctx, wallet(n), "open", map[string]any{"owner": "Ada"}, nil); err != nil {
			return err
		}
	}
	return nil
}

func wallet(n int) string { return fmt.Sprintf("w%d", n) }

// submit sends a command, and sets position, unless it is nil, to the position of the response.
func (p *wholePlatform) submit(
	ctx context.Context, id, command string, payload map[string]any, position *string,
) error {
	fields, err := structpb.NewStruct(payload)
	if err != nil {
		return err
	}
	var res aggregatev1.SubmitResponse
	req := &aggregatev1.SubmitRequest{
		AggregateType: "wallet",
		AggregateId:   id,
		Command:       command,
		Payload:       fields,
	}
	if err := p.conns[0].Invoke(p.ctx(ctx), commandsconnect.CommandServiceSubmitProcedure, req, &res); err != nil {
		return err
	}
	if position != nil {
		*position = res.GetPosition()
	}
	return nil
}

// acknowledgements records when deposits were acknowledged, by wallet and number.
type acknowledgements struct {
	mu sync.Mutex
	at map[string][]time.Time
}

func (a *acknowledgements) add(wallet string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[wallet] = append(a.at[wallet], at)
}

// of returns when the wallet's deposit n was acknowledged, or the zero time if it is not recorded yet.
func (a *acknowledgements) of(wallet string, n int) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n < 0 || n >= len(a.at[wallet]) {
		return time.Time{}
	}
	return a.at[wallet][n]
}

// run starts the watchers of the view, and then sends commands at a rate for a time.
func (p *wholePlatform) run(
	ctx context.Context, watchers int, rate float64, length time.Duration,
) (*platformRow, error) {
	row := &platformRow{acknowledged: newTimes(), read: newTimes(), watched: newTimes()}
	before := map[string]int{}
	for n := range platformWallets {
		before[wallet(n)] = p.made[wallet(n)]
	}
	known := &acknowledgements{at: map[string][]time.Time{}}
	var delivered atomic.Int64
	var last sync.Map // wallet → balance that every watcher must receive
	watchCtx, stop := context.WithTimeout(ctx, length+time.Minute)
	defer stop()
	var watching errgroup.Group
	ready := make(chan struct{}, watchers)
	done := make(chan struct{}) // no more commands
	for n := range watchers {
		watching.Go(func() error {
			return p.watch(watchCtx, p.conns[n%len(p.conns)], before, known, row.watched, &delivered, &last, ready,
				done)
		})
	}
	for range watchers {
		select {
		case <-ready:
		case <-watchCtx.Done():
			stop()
			return nil, errors.Join(watchCtx.Err(), watching.Wait())
		}
	}
	used, err := p.process.cpu()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	var commands errgroup.Group
	step := time.Duration(float64(time.Second) / rate)
	count := 0
	for due := began; due.Sub(began) < length; due = due.Add(step) {
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		id := wallet(count % platformWallets)
		count++
		p.made[id]++
		last.Store(id, p.made[id])
		// They are sent one by one, so that a wallet's deposits are acknowledged in their order.
		sent := time.Now()
		var position string
		if err := p.submit(ctx, id, "deposit", map[string]any{"amount": 1}, &position); err != nil {
			return nil, err
		}
		now := time.Now()
		known.add(id, now)
		row.acknowledged.add(now.Sub(sent))
		commands.Go(func() error {
			var res projectionv1.GetResponse
			if err := p.conns[1].Invoke(
				p.ctx(ctx), gatewayv1connect.QueryServiceGetProcedure,
				&projectionv1.GetRequest{View: "wallets", Key: id, MinPosition: position}, &res,
			); err != nil {
				return err
			}
			row.read.add(time.Since(now))
			return nil
		})
	}
	if err := commands.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	now, err := p.process.cpu()
	if err != nil {
		return nil, err
	}
	row.cpu = (now - used).Seconds() / took
	close(done)
	if err := watching.Wait(); err != nil {
		return nil, err
	}
	row.delivered = float64(delivered.Load()) / took
	resident, err := p.process.resident()
	row.memory = float64(resident)
	return row, err
}

// watch watches the view until done is closed and it has received the last balance of every wallet. It adds the delays
// between acknowledgements and changes to seen, and their number to delivered.
func (p *wholePlatform) watch(
	ctx context.Context, conn *grpc.ClientConn, before map[string]int, known *acknowledgements, seen *times,
	delivered *atomic.Int64, last *sync.Map, ready chan<- struct{}, done <-chan struct{},
) error {
	ctx, cancel := context.WithCancel(p.ctx(ctx))
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		gatewayv1connect.QueryServiceWatchProcedure)
	if err != nil {
		return err
	}
	if err := errors.Join(
		stream.SendMsg(&projectionv1.WatchRequest{View: "wallets", Fields: []string{"balance"}}), stream.CloseSend(),
	); err != nil {
		return err
	}
	balances := map[string]int{}
	complete := func() bool {
		select {
		case <-done:
		default:
			return false
		}
		all := true
		last.Range(func(id, balance any) bool {
			all = balances[id.(string)] == balance.(int)
			return all
		})
		return all
	}
	started := false
	for !complete() {
		var res projectionv1.WatchResponse
		if err := stream.RecvMsg(&res); err != nil {
			return fmt.Errorf("the watch has ended: %w", err)
		}
		now := time.Now()
		for _, change := range res.GetChanges() {
			balance := int(change.GetRow().GetFields()["balance"].GetNumberValue())
			id := change.GetKey()
			if started {
				delivered.Add(1)
				for n := balances[id]; n < balance; n++ {
					if at := known.of(id, n-before[id]); !at.IsZero() {
						seen.add(now.Sub(at))
					} else {
						seen.add(0) // the change has arrived before the acknowledgement
					}
				}
			}
			balances[id] = balance
		}
		if !started && res.GetPosition() != "" { // all initial rows have arrived
			started = true
			ready <- struct{}{}
		}
	}
	return nil
}
