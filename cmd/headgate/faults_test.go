package main_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// progress is how many commands must be answered between two faults.
	progress = 40
	// pools hold the money that transfers move.
	pools      = 6
	poolAmount = 100_000
	// crowd is how many send waveCommands each while a fault is inflicted: enough to wait
	// for the journal then that they are committed in groups.
	crowd        = 64
	waveCommands = 4
	// pacePerSecond bounds the commands of the clients between the waves, whose faults leave the machine to
	// the other tests; a run with HEADGATE_FAULTS has no bound.
	pacePerSecond = 150
)

func TestFaults_NoAcknowledgedCommandIsLost(t *testing.T) {
	t.Parallel()
	underLoad(t)
	for name, of := range map[string]struct {
		natsServers int
		usual       []fault // one of each kind for each target
	}{
		"one NATS server": {1, []fault{
			{"kill", "aggregate"}, {"pause", "nats-0"}, {"kill", "nats-0"}, {"cut", "nats-0"}, {"kill", "projection"},
			{"pause", "aggregate"}, {"kill", "runner"}, {"kill", "gateway"},
		}},
		"three NATS servers": {3, []fault{
			{"kill", "nats-0"}, {"kill", "aggregate"}, {"kill", "nats-1"}, {"freeze", "nats-2"}, {"kill", "nats-2"},
			{"cut", "nats-0"}, {"step down", leading}, {"kill", "runner"},
		}},
	} {
		t.Run(name, func(t *testing.T) { nothingIsLost(t, of.natsServers, of.usual) })
	}
}

func nothingIsLost(t *testing.T, natsServers int, usual []fault) {
	c := startCluster(t, natsServers, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	rights := []string{"command.submit", "query.read", "aggregate.read", "workflow.read"}
	stop := make(chan struct{})
	var acked, transfers atomic.Int64
	var pace *rate.Limiter
	if os.Getenv(faultsVariable) == "" {
		pace = rate.NewLimiter(pacePerSecond, progress)
	}
	clients, clientCtx := errgroup.WithContext(ctx)

	// acme's clients know what each command must answer.
	books := &ledger{balances: map[string]int64{}, movements: map[string]int{}}
	acme := contextkit.TenantContext(clientCtx, parseTenant(t, "acme"))
	json, grpc := dial(t, c.gateway, strings.TrimPrefix(c.token(t, "acme", rights...), "Bearer "))
	if _, err := json.commands.Submit(
		acme, request("wallet", "shared", "open", "shared", map[string]any{"owner": "all"}),
	); err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		w := &walk{
			name:    fmt.Sprintf("acme-%d", n),
			api:     []api{json, grpc}[n%2],
			ledger:  books,
			random:  rand.New(rand.NewPCG(uint64(n), 7)),
			held:    map[string]int64{},
			version: map[string]int64{},
			acked:   &acked,
			stop:    stop,
			pace:    pace,
			wallets: []string{fmt.Sprintf("w%d-0", n), fmt.Sprintf("w%d-1", n)},
		}
		clients.Go(func() error {
			for round := 0; ; round++ { // a walk has an end; the faults may have not
				if err := w.run(acme); err != nil {
					return err
				}
				select {
				case <-stop:
					return nil
				default:
				}
				w.name = fmt.Sprintf("acme-%d-%d", n, round)
				w.wallets = []string{fmt.Sprintf("w%d-%d-0", n, round), fmt.Sprintf("w%d-%d-1", n, round)}
			}
		})
	}

	// globex moves money between pools all the time.
	globex := contextkit.TenantContext(clientCtx, parseTenant(t, "globex"))
	moneyJSON, moneyGRPC := dial(t, c.gateway, strings.TrimPrefix(c.token(t, "globex", rights...), "Bearer "))
	mover := &walk{api: moneyGRPC, acked: &acked, pace: pace}
	for n := range pools {
		for _, req := range []struct {
			command string
			payload map[string]any
		}{{"open", map[string]any{"owner": "pool"}}, {"deposit", map[string]any{"amount": poolAmount}}} {
			if _, err := mover.submit(
				globex,
				request("wallet", fmt.Sprintf("pool-%d", n), req.command, fmt.Sprintf("pool-%d-%s", n, req.command),
					req.payload),
			); err != nil {
				t.Fatal(err)
			}
		}
	}
	clients.Go(func() error {
		random := rand.New(rand.NewPCG(3, 3))
		for n := 0; ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			from, to := random.IntN(pools), fmt.Sprintf("pool-%d", random.IntN(pools))
			if n%7 == 0 || to == fmt.Sprintf("pool-%d", from) {
				to = "nowhere" // is compensated
			}
			req := request("transfer", fmt.Sprintf("t%d", n), "request", fmt.Sprintf("t%d", n),
				map[string]any{"from": fmt.Sprintf("pool-%d", from), "to": to, "amount": 1 + random.IntN(500)})
			if _, err := mover.submit(globex, req); err != nil {
				return err
			}
			transfers.Add(1)
		}
	})

	// Further clients record a history of wallets of globex.
	recorded := newHistory()
	if natsServers > 1 {
		recorded.follow(globex, clients, stop, 1, moneyGRPC, map[string]api{"json": moneyJSON, "grpc": moneyGRPC})
	}

	var crowded atomic.Int64
	many := make([]*walk, crowd)
	for n := range many {
		many[n] = &walk{
			name:    fmt.Sprintf("crowd-%d", n),
			api:     []api{json, grpc}[n%2],
			ledger:  books,
			acked:   &crowded,
			held:    map[string]int64{},
			version: map[string]int64{},
			wallets: []string{fmt.Sprintf("crowd-%d", n)},
		}
	}
	kills := 0
	for n, f := range faults(t, natsServers, usual) {
		reached := acked.Load() + progress
		if err := eventually(
			clientCtx, "commands succeed", func() (bool, error) { return acked.Load() >= reached, nil },
		); err != nil {
			t.Fatalf("before fault %d: %v; %v", n, err, clients.Wait())
		}
		wave, waveCtx := errgroup.WithContext(acme)
		for _, w := range many {
			wave.Go(func() error { return w.deposits(waveCtx, waveCommands) })
		}
		began := time.Now()
		c.inflict(ctx, t, f)
		recorded.noteFault(f)
		if f.kind == "kill" {
			kills++
		}
		t.Logf("%3d: %s %s, %d commands answered, undone after %v", n, f.kind, f.target, acked.Load()+crowded.Load(),
			time.Since(began).Round(time.Millisecond))
		if err := wave.Wait(); err != nil {
			t.Fatalf("during fault %d: %v", n, err)
		}
		t.Logf("     the concurrent calls were answered after %v", time.Since(began).Round(time.Millisecond))
	}
	close(stop)
	if err := clients.Wait(); err != nil {
		t.Fatalf("%v\naggregate:\n%s\ngateway:\n%s", err, c.roles["aggregate"].log(), c.roles["gateway"].log())
	}
	t.Logf("%d kills, %d commands answered, %d transfers", kills, acked.Load()+crowded.Load(), transfers.Load())

	acme, globex = contextkit.TenantContext(ctx,
		parseTenant(t, "acme")), contextkit.TenantContext(ctx, parseTenant(t, "globex"))
	ended := func() (bool, error) {
		all, err := every(globex, moneyGRPC.queries, "transfers", "transfer_id", "")
		if err != nil || int64(len(all)) < transfers.Load() {
			return false, err
		}
		for _, row := range all {
			if row["state"] == "requested" {
				return false, fmt.Errorf("transfer %v has not ended", row["transfer_id"])
			}
		}
		return true, nil
	}
	waiting, cancelWait := context.WithTimeout(globex,
		6*time.Minute) // attempts at a workflow are up to two minutes apart
	defer cancelWait()
	if err := eventually(waiting, "transfers end", ended); err != nil {
		t.Fatalf("%v\n%s", err, c.roles["runner"].log())
	}
	t.Run("the views equal the ledger", func(t *testing.T) { checkBooks(acme, t, books, json, grpc) })
	t.Run("no money is lost or created", func(t *testing.T) {
		total := int64(0)
		wallets, err := every(globex, moneyJSON.queries, "wallets", "wallet_id", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range wallets {
			if !historyWallet(row["wallet_id"].(string)) {
				total += int64(row["balance"].(float64))
			}
		}
		if total != pools*poolAmount {
			t.Errorf("total %d, want %d", total, pools*poolAmount)
		}
	})
	t.Run("the history is linearizable", func(t *testing.T) { recorded.check(ctx, t, c, "globex") })
	t.Run("the journal contains each command once", func(t *testing.T) { c.checkJournal(ctx, t) })
	t.Run("the views equal a fresh replay of the journal", func(t *testing.T) {
		c.checkReplay(ctx, t,
			map[string]queriesconnect.QueryServiceClient{"acme": json.queries, "globex": moneyJSON.queries})
	})
	c.stop(t)
}

// every reads all rows of a view.
func every(
	ctx context.Context, queries queriesconnect.QueryServiceClient, view, order, position string,
) (all []map[string]any, err error) {
	for token := ""; ; {
		res, err := queries.Query(
			ctx,
			&projectionv1.QueryRequest{
				View:        view,
				MinPosition: position,
				Query:       &projectionv1.Query{OrderBy: order, PageSize: 500, PageToken: token},
			},
		)
		if err != nil {
			return nil, err
		}
		for _, row := range res.GetRows() {
			all = append(all, row.AsMap())
		}
		if token = res.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// checkJournal reads all events: no idempotency key has taken effect twice,
// and versions have no gaps.
func (c *cluster) checkJournal(ctx context.Context, t *testing.T) {
	t.Helper()
	conn := c.connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	keys, versions, grouped := map[string]string{}, map[string]int64{}, 0
	for range info.State.Msgs {
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
		if msg.Headers().Get(jetstreamext.BatchIDHeader) != "" {
			grouped++
		}
		if key := event.Command.IdempotencyKey; key != "" {
			key = event.Context.TenantID.String() + "/" + key
			if other, twice := keys[key]; twice {
				t.Errorf("%s took effect twice: %s and %s", key, other, event.ID)
			}
			keys[key] = event.ID
		}
		if versions[msg.Subject()]++; versions[msg.Subject()] != event.Version {
			t.Errorf("%s: version %d is event number %d", msg.Subject(), event.Version, versions[msg.Subject()])
		}
	}
	t.Logf("%d events, %d of them committed in groups or in a command of several events", info.State.Msgs,
		grouped)
}

// checkReplay starts another projection on nothing and compares all views.
func (c *cluster) checkReplay(ctx context.Context, t *testing.T, served map[string]queriesconnect.QueryServiceClient) {
	t.Helper()
	settings, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	_, rest, _ := strings.Cut(string(settings), "\nprojection:\n")
	_, rest, _ = strings.Cut(rest, "\nrunner:\n")
	head, _, _ := strings.Cut(string(settings), "\nprojection:\n")
	path := c.write(
		t, "replay.yaml",
		fmt.Sprintf("%s\nprojection:\n  server: {listen: %q}\n  data: %q\nrunner:\n%s", head, addr,
			filepath.Join(c.dir, "replay"), rest),
	)
	replay := &process{path: binary, ready: "listens on", args: []string{"serve", "projection", "--config", path}}
	replay.start(t)
	defer replay.stop(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	direct := queriesconnect.NewQueryServiceClient(
		contextkit.NewClient(connecthttp.NewTransport(client, "http://"+addr, connecthttp.WithProtoJSON())),
	)
	for _, tenant := range slices.Sorted(maps.Keys(served)) {
		ctx := contextkit.TenantContext(ctx, parseTenant(t, tenant))
		err := eventually(ctx, "the views are built", func() (bool, error) {
			status, _, err := get(ctx, "http://"+addr+"/ready?tenant="+tenant)
			return status == http.StatusOK, err
		})
		if err != nil {
			t.Fatal(err)
		}
		for view, order := range map[string]string{
			"wallets": "wallet_id", "movements": "wallet_id, version", "transfers": "transfer_id",
		} {
			// The position that is served is where the other must be too.
			res, err := served[tenant].Query(ctx,
				&projectionv1.QueryRequest{View: view, Query: &projectionv1.Query{PageSize: 1}})
			if err != nil {
				t.Fatal(err)
			}
			want, err := every(ctx, served[tenant], view, order, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := every(ctx, direct, view, order, res.GetPosition())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s of %s (-served +replayed):\n%s", view, tenant, diff)
			}
		}
	}
}
