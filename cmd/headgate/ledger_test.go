package main_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// Size of the walk: 2 tenants x 10 clients x 120 commands.
const (
	clientsPerTenant  = 10
	commandsPerClient = 120
	walletsPerClient  = 5
	killAfter         = clientsPerTenant * commandsPerClient // half of all
	transfersPerWalk  = 100
)

// api is a client of the edge over one protocol.
type api struct {
	commands commandsconnect.CommandServiceClient
	queries  queriesconnect.QueryServiceClient
}

// dial returns clients over JSON and over gRPC.
func dial(t *testing.T, gateway, token string) (json, grpc api) {
	t.Helper()
	plain := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(plain.CloseIdleConnections)
	t.Cleanup(h2c.CloseIdleConnections)
	credential := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("authorization", "Bearer "+token)
			return next(ctx, spec)
		}
	}
	client := func(transport connect.Transport) api {
		c := contextkit.NewClient(transport, credential)
		return api{commandsconnect.NewCommandServiceClient(c), queriesconnect.NewQueryServiceClient(c)}
	}
	return client(connecthttp.NewTransport(plain, gateway, connecthttp.WithProtoJSON())),
		client(connecthttp.NewTransport(h2c, gateway, connecthttp.WithGRPC()))
}

// ledger is the expected balances of a tenant's wallets, computed without the platform.
type ledger struct {
	mu        sync.Mutex
	balances  map[string]int64
	movements map[string]int // by wallet
	position  string         // of some acknowledged command
	acked     int
}

func (l *ledger) note(wallet string, amount int64, position string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.balances[wallet] += amount
	if amount != 0 {
		l.movements[wallet]++
	}
	l.position = position
	l.acked++
}

// walk is one client's commands: it knows what each must answer.
type walk struct {
	name    string
	api     api
	ledger  *ledger
	random  *rand.Rand
	wallets []string
	held    map[string]int64 // balances of the client's own wallets
	version map[string]int64
	acked   *atomic.Int64
	stop    <-chan struct{} // ends the walk early; nil: all commands
	pace    *rate.Limiter   // of all clients' commands together; nil: as fast as they are answered
}

// submit sends a command until the platform answers it: a process that was
// killed is asked again, under the same idempotency key.
func (w *walk) submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error) {
	if w.pace != nil {
		if err := w.pace.Wait(ctx); err != nil {
			return nil, err
		}
	}
	var (
		res *aggregatev1.SubmitResponse
		err error
	)
	waited := eventually(ctx, "no answer to "+req.GetIdempotencyKey(), func() (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		res, err = w.api.commands.Submit(attempt, req)
		if err == nil {
			return true, nil
		}
		switch connect.CodeOf(err) {
		case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal, connect.CodeDeadlineExceeded,
			connect.CodeCanceled, connect.CodeResourceExhausted:
			return false, err
		case connect.CodeAborted:
			// A lost race without expected_version asks to be repeated.
			return req.ExpectedVersion != nil, err
		}
		return true, err
	})
	if waited != nil {
		return nil, waited
	}
	w.acked.Add(1)
	return res, err
}

func request(aggregate, id, command, key string, payload map[string]any) *aggregatev1.SubmitRequest {
	object, err := structpb.NewStruct(payload)
	if err != nil {
		panic(err)
	}
	return &aggregatev1.SubmitRequest{
		AggregateType:  aggregate,
		AggregateId:    id,
		Command:        command,
		Payload:        object,
		IdempotencyKey: key,
	}
}

// run opens the client's wallets and sends its commands.
func (w *walk) run(ctx context.Context) error {
	for n := range commandsPerClient {
		select {
		case <-w.stop:
			return nil
		default:
		}
		key := fmt.Sprintf("%s-%d", w.name, n)
		if n < len(w.wallets) {
			if err := w.accepted(
				ctx, request("wallet", w.wallets[n], "open", key, map[string]any{"owner": w.name}), 0,
			); err != nil {
				return err
			}
			continue
		}
		if err := w.step(ctx, key); err != nil {
			return fmt.Errorf("command %s: %w", key, err)
		}
	}
	return nil
}

// deposits sends a number of deposits into the walk's first wallet, which it opens if need be.
func (w *walk) deposits(ctx context.Context, count int) error {
	wallet := w.wallets[0]
	if w.version[wallet] == 0 {
		if err := w.accepted(
			ctx, request("wallet", wallet, "open", w.name, map[string]any{"owner": w.name}), 0,
		); err != nil {
			return err
		}
	}
	for range count {
		key := fmt.Sprintf("%s-%d", w.name, w.version[wallet])
		if err := w.accepted(
			ctx, request("wallet", wallet, "deposit", key, map[string]any{"amount": 1, "reference": key}), 1,
		); err != nil {
			return err
		}
	}
	return nil
}

// step sends one command of a random kind and checks the answer.
func (w *walk) step(ctx context.Context, key string) error {
	wallet := w.wallets[w.random.IntN(len(w.wallets))]
	amount := 1 + w.random.Int64N(100_00)
	move := func(command string, amount int64) *aggregatev1.SubmitRequest {
		return request("wallet", wallet, command, key, map[string]any{"amount": amount, "reference": key})
	}
	switch kind := w.random.IntN(10); {
	case kind < 4: // a deposit
		return w.accepted(ctx, move("deposit", amount), amount)
	case kind < 6 && w.held[wallet] >= amount: // a covered withdrawal
		return w.accepted(ctx, move("withdraw", amount), -amount)
	case kind == 6: // an overdraft
		_, err := w.submit(ctx, move("withdraw", w.held[wallet]+amount))
		return want(err, connect.CodeFailedPrecondition)
	case kind == 7: // the wrong version
		req := move("deposit", amount)
		wrong := w.version[wallet] + 1 + w.random.Int64N(5)
		req.ExpectedVersion = &wrong
		_, err := w.submit(ctx, req)
		return want(err, connect.CodeAborted)
	case kind == 8: // the right version, then the same command again
		req := move("deposit", amount)
		right := w.version[wallet]
		req.ExpectedVersion = &right
		if err := w.accepted(ctx, req, amount); err != nil {
			return err
		}
		again, err := w.submit(ctx, req)
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		if !again.GetReplayed() || again.GetVersion() != w.version[wallet] {
			return fmt.Errorf("replay: version %d, replayed %v; want %d, true", again.GetVersion(),
				again.GetReplayed(), w.version[wallet])
		}
		return nil
	case kind == 9: // another command under a used key
		if err := w.accepted(ctx, move("deposit", amount), amount); err != nil {
			return err
		}
		_, err := w.submit(ctx, move("deposit", amount+1))
		return want(err, connect.CodeAlreadyExists)
	default: // a deposit into the wallet that all clients share
		wallet = "shared"
		req := request("wallet", wallet, "deposit", key, map[string]any{"amount": amount})
		res, err := w.submit(ctx, req)
		if err != nil {
			return err
		}
		w.ledger.note(wallet, amount, res.GetPosition())
		return nil
	}
}

// accepted sends a command that must be accepted and notes its effect.
func (w *walk) accepted(ctx context.Context, req *aggregatev1.SubmitRequest, amount int64) error {
	res, err := w.submit(ctx, req)
	if err != nil {
		return err
	}
	wallet := req.GetAggregateId()
	if res.GetVersion() != w.version[wallet]+1 || len(res.GetEvents()) != 1 {
		return fmt.Errorf("%s of %s answers version %d after %d", req.GetCommand(), wallet, res.GetVersion(),
			w.version[wallet])
	}
	w.version[wallet]++
	w.held[wallet] += amount
	w.ledger.note(wallet, amount, res.GetPosition())
	return nil
}

func want(err error, code connect.Code) error {
	if connect.CodeOf(err) != code || err == nil {
		return fmt.Errorf("answered %w, want %v", err, code)
	}
	return nil
}

// rows reads all of a view, page by page.
func rows(
	ctx context.Context, queries queriesconnect.QueryServiceClient, view, filter, position string,
) ([]map[string]any, error) {
	var all []map[string]any
	token := ""
	for {
		res, err := queries.Query(ctx, &projectionv1.QueryRequest{
			View: view, MinPosition: position,
			Query: &projectionv1.Query{
				Filter:    filter,
				OrderBy:   "wallet_id",
				PageSize:  400,
				PageToken: token,
			},
		})
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

func TestDev_NoAcknowledgedCommandIsLostOrDoubledByACrash(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 15 s, and a minute under the race detector")
	}
	data := t.TempDir()
	p := start(t, data, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()

	var (
		acked   atomic.Int64
		ledgers = map[string]*ledger{}
		jsonAPI = map[string]api{}
		grpcAPI = map[string]api{}
	)
	clients, clientCtx := errgroup.WithContext(ctx)
	for _, tenant := range []string{"acme", "globex"} {
		l := &ledger{balances: map[string]int64{}, movements: map[string]int{}}
		ledgers[tenant] = l
		jsonAPI[tenant], grpcAPI[tenant] = dial(t, p.gateway, p.tokens[strings.ToUpper(tenant)])
		tenantCtx := contextkit.TenantContext(clientCtx, parseTenant(t, tenant))
		if _, err := jsonAPI[tenant].commands.Submit(
			tenantCtx, request("wallet", "shared", "open", tenant+"-shared", map[string]any{"owner": "all"}),
		); err != nil {
			t.Fatal(err)
		}
		for n := range clientsPerTenant {
			w := &walk{
				name:    fmt.Sprintf("%s-%d", tenant, n),
				api:     jsonAPI[tenant],
				ledger:  l,
				random:  rand.New(rand.NewPCG(uint64(n), 42)),
				held:    map[string]int64{},
				version: map[string]int64{},
				acked:   &acked,
			}
			if n%2 == 1 {
				w.api = grpcAPI[tenant]
			}
			for i := range walletsPerClient {
				w.wallets = append(w.wallets, fmt.Sprintf("w%d-%d", n, i))
			}
			clients.Go(func() error { return w.run(tenantCtx) })
		}
	}

	if err := eventually(
		clientCtx, "half of the commands", func() (bool, error) { return acked.Load() >= killAfter, nil },
	); err != nil {
		t.Fatal(errors.Join(err, clients.Wait()))
	}
	began := time.Now()
	p.kill(t)
	p = start(t, data, p)
	t.Logf("killed after %d answers; ready again after %v", acked.Load(), time.Since(began).Round(time.Millisecond))
	if err := clients.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, p.stderr)
	}
	t.Logf("%d commands answered", acked.Load())

	for tenant, l := range ledgers {
		t.Run(tenant, func(t *testing.T) {
			ctx := contextkit.TenantContext(ctx, parseTenant(t, tenant))
			checkBooks(ctx, t, l, jsonAPI[tenant], grpcAPI[tenant])
			runTransfers(ctx, t, l, jsonAPI[tenant], grpcAPI[tenant])
		})
	}
	if rest := p.stop(t); !strings.Contains(rest, "headgate has stopped") {
		t.Errorf("last output %q", rest)
	}
}

func parseTenant(t *testing.T, name string) contextkit.TenantID {
	t.Helper()
	tenant, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

// checkBooks compares the views with the ledger, over both protocols.
func checkBooks(ctx context.Context, t *testing.T, l *ledger, json, grpc api) {
	t.Helper()
	wallets, err := rows(ctx, json.queries, "wallets", "", l.position)
	if err != nil {
		t.Fatal(err)
	}
	overGRPC, err := rows(ctx, grpc.queries, "wallets", "", l.position)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wallets, overGRPC); diff != "" {
		t.Errorf("JSON and gRPC answer differently (-json +grpc):\n%s", diff)
	}
	balances := map[string]int64{}
	for _, row := range wallets {
		balances[row["wallet_id"].(string)] = int64(row["balance"].(float64))
	}
	wanted := maps.Clone(l.balances)
	if diff := cmp.Diff(wanted, balances); diff != "" {
		t.Errorf("balances differ to the cent (-ledger +view):\n%s", diff)
	}
	movements, err := rows(ctx, grpc.queries, "movements", "", l.position)
	if err != nil {
		t.Fatal(err)
	}
	sums, counts := map[string]int64{}, map[string]int{}
	for _, row := range movements {
		wallet := row["wallet_id"].(string)
		sums[wallet] += int64(row["amount"].(float64))
		counts[wallet]++
	}
	if diff := cmp.Diff(l.movements, counts); diff != "" {
		t.Errorf("movements are missing or doubled (-ledger +view):\n%s", diff)
	}
	for wallet, sum := range sums {
		if sum != l.balances[wallet] {
			t.Errorf("sum of the movements of %s is %d, balance %d", wallet, sum, l.balances[wallet])
		}
	}
}

// runTransfers moves money between wallets, sometimes to nowhere, and checks
// that each transfer ends and that no cent is lost.
func runTransfers(ctx context.Context, t *testing.T, l *ledger, json, grpc api) {
	t.Helper()
	before := int64(0)
	for _, balance := range l.balances {
		before += balance
	}
	wallets := slices.Sorted(maps.Keys(l.balances))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for n := range transfersPerWalk {
		from, to := wallets[n%len(wallets)], wallets[(n*7+1)%len(wallets)]
		if n%5 == 0 {
			to = "nowhere"
		}
		if from == to {
			to = "shared"
		}
		group.Go(func() error {
			_, err := json.commands.Submit(
				groupCtx, request("transfer", fmt.Sprintf("t%d", n), "request", fmt.Sprintf("transfer-%d", n),
					map[string]any{"from": from, "to": to, "amount": 25 + n}),
			)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	outcome := map[string]int{}
	if err := eventually(waiting, "transfers do not end", func() (bool, error) {
		clear(outcome)
		res, err := grpc.queries.Query(waiting,
			&projectionv1.QueryRequest{View: "transfers", Query: &projectionv1.Query{PageSize: 1000}})
		for _, row := range res.GetRows() {
			outcome[row.AsMap()["state"].(string)]++
		}
		return len(res.GetRows()) == transfersPerWalk && outcome["requested"] == 0, err
	}); err != nil {
		t.Fatalf("%v: %v", err, outcome)
	}
	if outcome["completed"] == 0 || outcome["failed"] < transfersPerWalk/5 {
		t.Errorf("outcomes %v: some must complete, and those to nowhere must fail", outcome)
	}
	after := int64(0)
	all, err := rows(ctx, json.queries, "wallets", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all {
		after += int64(row["balance"].(float64))
	}
	if after != before {
		t.Errorf("the tenant has %d cents after the transfers and had %d before", after, before)
	}
}
