package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// deposedBound is the age of the oldest state that reads and refusals may be answered from (docs/guarantees.md).
	deposedBound = journal.DeposedBound
	// historyClients is the number of clients of a history.
	historyClients = 4
)

// historyDir returns where histories and reports are written.
func historyDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(reportVariable); dir != "" {
		return filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_"))
	}
	return filepath.Join(os.TempDir(), "headgate-history")
}

// follow starts clients that record a history of a tenant's wallets until stop is closed.
func (h *history) follow(
	ctx context.Context, clients *errgroup.Group, stop <-chan struct{}, seed uint64, queries api, apis map[string]api,
) {
	for n := range historyClients {
		client := &historian{
			number:  n,
			apis:    apis,
			queries: queries,
			history: h,
			random:  rand.New(rand.NewPCG(seed, uint64(n))),
		}
		clients.Go(func() error { return client.run(ctx, stop) })
	}
}

// watch starts a client that only reads states, and sends commands that are refused, at one node.
func (h *history) watch(
	ctx context.Context, clients *errgroup.Group, stop <-chan struct{}, number int, name string, node api,
) {
	client := &historian{
		number:  number,
		apis:    map[string]api{name: node},
		history: h,
		random:  rand.New(rand.NewPCG(0, 0)),
		reads:   true,
	}
	clients.Go(func() error { return client.run(ctx, stop) })
}

// check checks the history, which has ended, against the sequential model and the journal.
func (h *history) check(ctx context.Context, t *testing.T, c *cluster, tenant string) staleReads {
	t.Helper()
	dir := historyDir(t)
	began := time.Now()
	h.linearizable(t, dir)
	stale := h.stale(t, c.balances(ctx, t, tenant), deposedBound)
	t.Logf("%d operations on %d wallets, %+v, checked in %v", len(h.operations), len(h.wallets()), stale,
		time.Since(began).Round(time.Millisecond))
	if t.Failed() {
		h.write(t, dir)
	}
	return stale
}

// balances returns the balances of a tenant's wallets by version, as the journal has them.
func (c *cluster) balances(ctx context.Context, t *testing.T, tenant string) map[string]ledgerOf {
	t.Helper()
	js, err := jetstream.New(c.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(ctx,
		jetstream.OrderedConsumerConfig{FilterSubjects: []string{streams.TenantEvents(parseTenant(t, tenant))}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	all := map[string]ledgerOf{}
	for range info.NumPending {
		msg, err := messages.Next(jetstream.NextMaxWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		event, err := journal.ReadEvent(journal.Message{
			Subject:  msg.Subject(),
			Header:   msg.Headers(),
			Data:     msg.Data(),
			Sequence: meta.Sequence.Stream,
			Time:     meta.Timestamp,
		})
		if err != nil {
			t.Fatal(err)
		}
		if event.AggregateType != "wallet" || !historyWallet(event.AggregateID) {
			continue
		}
		if all[event.AggregateID] == nil {
			all[event.AggregateID] = ledgerOf{0}
		}
		balances := all[event.AggregateID]
		all[event.AggregateID] = append(balances, balances[len(balances)-1]+movement(t, event))
	}
	return all
}

// straight returns a client of an aggregate node, without the gateway.
func straight(t *testing.T, url string) api {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(client.CloseIdleConnections)
	return api{
		commands: commandsconnect.NewCommandServiceClient(
			contextkit.NewClient(connecthttp.NewTransport(client, url, connecthttp.WithProtoJSON())),
		),
	}
}

// TestLinearizability_HoldsUnderFaults records what clients do through the gateway, and at two aggregate nodes of which
// each is connected to a separate NATS server, while faults are inflicted on three NATS servers and on every role.
func TestLinearizability_HoldsUnderFaults(t *testing.T) {
	number, seed := wanted(t)
	if number == 0 {
		t.Skipf("takes about ten seconds per fault: set %s to their number", faultsVariable)
	}
	c := startCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(number)*time.Minute+10*time.Minute)
	defer cancel()
	// One more aggregate node for each NATS server, which does not leave it for another.
	all := c.bus
	apis := map[string]api{}
	targets := []string{"aggregate", "projection", "gateway", "projection-2"}
	for n, w := range c.wires {
		name, addr := fmt.Sprintf("aggregate-%d", n), freePort(t)
		c.bus = strings.Replace(all, all[strings.Index(all, `"`):strings.Index(all, `",`)+1],
			fmt.Sprintf("%q", "nats://"+w.addr), 1)
		c.roles[name] = c.further(t, "aggregate", name, fmt.Sprintf("  server: {listen: %q}", addr))
		apis[name] = straight(t, "http://"+addr)
		targets = append(targets, name)
	}
	c.bus = all
	c.roles["projection-2"] = c.further(t, "projection", "projection-2",
		fmt.Sprintf("  server: {listen: %q}\n  data: %q", freePort(t), filepath.Join(c.dir, "views-2")))

	apis["json"], apis["grpc"] = dial(t, c.gateway,
		strings.TrimPrefix(c.token(t, "acme", "command.submit", "query.read", "aggregate.read"), "Bearer "))
	h, stop := newHistory(), make(chan struct{})
	clients, clientCtx := errgroup.WithContext(contextkit.TenantContext(ctx, parseTenant(t, "acme")))
	h.follow(clientCtx, clients, stop, seed, apis["grpc"], apis)
	for n := range c.wires {
		name := fmt.Sprintf("aggregate-%d", n)
		h.watch(clientCtx, clients, stop, historyClients+n, name, apis[name])
	}

	random := rand.New(rand.NewPCG(seed, 2))
	var inflicted []inflictedFault
	for n := range number {
		f := fault{"isolate", leading} // in every run: it is a deposed leader, with clients
		if n > 0 {
			f = randomFault(random, len(c.nats), targets)
		}
		reached := h.len() + 2*walletOperations
		if err := eventually(
			clientCtx, "operations are answered", func() (bool, error) { return h.len() >= reached, nil },
		); err != nil {
			t.Errorf("before fault %d: %v", n, err)
			break
		}
		begin := h.now()
		c.inflict(ctx, t, f)
		h.noteFault(f)
		inflicted = append(inflicted, inflictedFault{f.String(), begin, h.now()})
		t.Logf("%3d: %v, undone after %v", n, f, (h.now() - begin).Round(time.Millisecond))
	}
	close(stop)
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	stale := h.check(ctx, t, c, "acme")
	h.report(t, report{
		Seed:       seed,
		Faults:     inflicted,
		Stale:      stale,
		StaleBound: deposedBound,
	})
	c.stop(t)
}

// randomFault draws a fault of a NATS server, or of one of the roles.
func randomFault(random *rand.Rand, natsServers int, roles []string) fault {
	servers := []string{leading}
	for n := range natsServers {
		servers = append(servers, fmt.Sprintf("nats-%d", n))
	}
	draw := func(from []string) string { return from[random.IntN(len(from))] }
	if random.IntN(3) == 0 {
		return fault{draw([]string{"kill", "pause", "freeze"}), draw(roles)}
	}
	return fault{
		draw([]string{"kill", "pause", "freeze", "cut", "isolate", "isolate", "mute", "deafen", "step down"}),
		draw(servers),
	}
}
