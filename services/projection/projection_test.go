package projection_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// server is the PostgreSQL server that the tests share; the first one starts it.
var (
	server = sync.OnceValues(func() (*postgrestest.Server, error) {
		started.Store(true)
		return postgrestest.Start()
	})
	started atomic.Bool
)

func TestMain(m *testing.M) {
	natstest.Main(m, func() error {
		if !started.Load() {
			return nil
		}
		if s, err := server(); err == nil { // otherwise the tests have reported the error
			return s.Stop()
		}
		return nil
	})
}

// overBoth runs a test with each kind of store, or, with -short, with one of them, which depends on the test's name.
// newStore returns the opener of an empty one.
func overBoth(t *testing.T, test func(t *testing.T, newStore func(t *testing.T) store.Opener)) {
	t.Helper()
	chosen := fnv.New32a()
	_, _ = chosen.Write([]byte(t.Name())) // it never fails
	even := chosen.Sum32()%2 == 0
	t.Run("sqlite", func(t *testing.T) {
		if testing.Short() && !even {
			t.Skip("runs over the other store")
		}
		test(t, func(t *testing.T) store.Opener { return sqlite.In(t.TempDir()) })
	})
	t.Run("postgres", func(t *testing.T) {
		if testing.Short() && even {
			t.Skip("runs over the other store")
		}
		s, err := server()
		if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("HEADGATE_POSTGRES") == "" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		test(t, func(t *testing.T) store.Opener {
			database, err := postgres.Open(t.Context(), s.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(database.Close)
			return database.Views
		})
	})
}

// fixture is a projection node and a journal that the test writes.
type fixture struct {
	client    gatewayv1connect.QueryServiceClient
	service   *projection.Service
	models    *model.Registry
	tenants   *rpc.Tenants
	journal   *journal.Journal
	positions *position.Codec
	last      map[string]uint64 // of each aggregate's last event
	versions  map[string]int64
	sequence  map[string]uint64 // of each tenant's last event
	js        jetstream.JetStream
	skipped   skips.Skip // the last record that skip has stored
	stop      func()
}

func start(t *testing.T, js jetstream.JetStream, open store.Opener, source model.Source) *fixture {
	t.Helper()
	return startWith(t, js, open, source, projection.Config{})
}

func startWith(
	t *testing.T, js jetstream.JetStream, open store.Opener, source model.Source, config projection.Config,
) *fixture {
	t.Helper()
	return startTimed(t, js, open, source, config, nil)
}

// startTimed is startWith with a timeline.
func startTimed(
	t *testing.T, js jetstream.JetStream, open store.Opener, source model.Source, config projection.Config,
	timeline *timeline.Recorder,
) *fixture {
	t.Helper()
	models, err := model.Open(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	tenants, err := rpc.ParseTenants([]string{"acme", "globex"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := projection.New(t.Context(), config, js, models, tenants, open, timeline, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := kv.SharedSecret(t.Context(), js, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	server := connect.NewServer(contextkit.ServerInterceptor, rpc.Validate)
	service.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	f := &fixture{
		client:    gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(connectinprocess.New(server))),
		service:   service,
		models:    models,
		tenants:   tenants,
		journal:   journal,
		js:        js,
		positions: position.NewCodec(secret, journal.Epoch, nil),
		last:      map[string]uint64{},
		versions:  map[string]int64{},
		sequence:  map[string]uint64{},
	}
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, service.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(f.stop)
	return f
}

func as(t testing.TB, tenant string) context.Context {
	return contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant))
}

// append writes an event of a wallet.
func (f *fixture) append(t testing.TB, tenant, wallet, eventType, data string) {
	t.Helper()
	key := tenant + "/" + wallet
	f.versions[key]++
	events := []journal.Event{{
		ID: contextkit.NewID(), Type: eventType, AggregateType: "wallet", AggregateID: wallet, Version: f.versions[key],
		Time: time.Unix(1_800_000_000, 0).Add(time.Duration(f.versions[key]) * time.Second), Data: []byte(data),
	}}
	if err := f.journal.Append(as(t, tenant), natstest.Tenant(t, tenant), f.last[key], events); err != nil {
		t.Fatal(err)
	}
	f.last[key], f.sequence[tenant] = events[0].Sequence, events[0].Sequence
}

// position returns the position token of a tenant's last event.
func (f *fixture) position(t testing.TB, tenant string) string {
	return f.positions.Format(natstest.Tenant(t, tenant), f.sequence[tenant])
}

// fill gives acme five wallets and globex one.
func (f *fixture) fill(t testing.TB) {
	for i, owner := range []string{"ada", "bob", "cyd", "bob", "eve"} {
		wallet := fmt.Sprintf("w%d", i)
		f.append(t, "acme", wallet, "opened", fmt.Sprintf(`{"owner":%q}`, owner))
		f.append(t, "acme", wallet, "deposited", fmt.Sprintf(`{"amount":%d,"reference":"start"}`, 100*(i%3)+1))
	}
	f.append(t, "globex", "secret", "opened", `{"owner":"globex-only"}`)
}

// query returns the wallets' ids in a response.
func (f *fixture) query(t testing.TB, q *projectionv1.Query) ([]string, error) {
	res, err := f.client.Query(as(t, "acme"),
		&projectionv1.QueryRequest{View: "wallets", Query: q, MinPosition: f.position(t, "acme")})
	ids := []string{}
	for _, row := range res.GetRows() {
		ids = append(ids, fmt.Sprint(row.AsMap()["wallet_id"]))
	}
	return ids, err
}

func TestQuery_FiltersAndOrders(t *testing.T) { overBoth(t, queryFiltersAndOrders) }

func queryFiltersAndOrders(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	cases := []struct{ filter, order, want string }{
		{"", "", "w0 w1 w2 w3 w4"},
		{`owner = "bob"`, "", "w1 w3"},
		{`owner = "bob" AND balance > 50`, "", "w1"},
		{`owner != "bob"`, "", "w0 w2 w4"},
		{`balance >= 101 balance < 201`, "", "w1 w4"},
		{`owner = "ada" OR owner = "eve"`, "", "w0 w4"},
		{`NOT owner = "bob"`, "", "w0 w2 w4"},
		{`-owner = "bob"`, "", "w0 w2 w4"},
		{`owner:"y"`, "", "w2"},
		{`(balance = 1 OR balance = 201) AND owner:"b"`, "", "w3"},
		{`opened_at > "2027-01-15T08:00:00Z"`, "", "w0 w1 w2 w3 w4"},
		{`opened_at > timestamp("2028-01-01T00:00:00Z")`, "", ""},
		{`balance = -5`, "", ""},
		{`owner = "'; DROP TABLE view_wallets; --"`, "", ""},
		{"", "balance desc", "w2 w1 w4 w0 w3"},
		{"", "owner, balance desc", "w0 w1 w3 w2 w4"},
	}
	for _, tc := range cases {
		got, err := f.query(t, &projectionv1.Query{Filter: tc.filter, OrderBy: tc.order})
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("filter %q, order %q: %v, %v; want %s", tc.filter, tc.order, got, err, tc.want)
		}
	}
}

func TestGet_ReturnsRequestedFields(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		f := start(t, natstest.Start(t), newStore(t), model.Wallet)
		f.fill(t)
		get := func(fields ...string) (map[string]any, error) {
			res, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{
				View:        "wallets",
				Key:         "w1",
				Fields:      fields,
				MinPosition: f.position(t, "acme"),
			})
			return res.GetRow().AsMap(), err
		}
		if row, err := get("owner", "balance"); err != nil || len(row) != 2 || row["owner"] != "bob" ||
			row["balance"] != 101.0 {
			t.Errorf("%v, %v", row, err)
		}
		if row, err := get(); err != nil || len(row) != 6 {
			t.Errorf("got %v, %v; want all columns", row, err)
		}
		if _, err := get("secret"); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("unknown column: %v", err)
		}
	})
}

func TestQuery_PagesHaveNoGapOrOverlap(t *testing.T) {
	overBoth(t, queryPagesHaveNoGapOrOverlap)
}

func queryPagesHaveNoGapOrOverlap(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	for _, order := range []string{"", "balance", "balance desc", "owner desc, balance", "updated_at"} {
		whole, err := f.query(t, &projectionv1.Query{OrderBy: order})
		if err != nil {
			t.Fatal(err)
		}
		var paged []string
		token := ""
		for pages := 0; ; pages++ {
			res, err := f.client.Query(
				as(t, "acme"), &projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{
					OrderBy:   order,
					PageSize:  2,
					PageToken: token,
					Fields:    []string{"wallet_id"},
				}},
			)
			if err != nil || pages > 3 {
				t.Fatalf("order %q, page %d: %v", order, pages, err)
			}
			for _, row := range res.GetRows() {
				if len(row.GetFields()) != 1 {
					t.Fatalf("fields beyond the requested one: %v", row)
				}
				paged = append(paged, row.GetFields()["wallet_id"].GetStringValue())
			}
			if token = res.GetNextPageToken(); token == "" {
				break
			}
		}
		if diff := cmp.Diff(whole, paged); diff != "" {
			t.Errorf("order %q (-whole +paged):\n%s", order, diff)
		}
	}
}

func TestQuery_InvalidRequestIsRejected(t *testing.T) {
	overBoth(t, queryInvalidRequestIsRejected)
}

func queryInvalidRequestIsRejected(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	first, err := f.client.Query(
		as(t, "acme"),
		&projectionv1.QueryRequest{
			View:        "wallets",
			Query:       &projectionv1.Query{PageSize: 1},
			MinPosition: f.position(t, "acme"),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	token := first.GetNextPageToken()
	cases := []struct {
		name   string
		tenant string
		req    *projectionv1.QueryRequest
		code   connect.Code
		text   string
	}{
		{
			"malformed filter", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Filter: "balance >"}},
			connect.CodeInvalidArgument, "the filter cannot be used: at character 10",
		},
		{
			"filter on an unknown column", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Filter: `color = "red"`}},
			connect.CodeInvalidArgument, `no column "color"`,
		},
		{
			"filter of mixed types", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Filter: `balance = "red"`}},
			connect.CodeInvalidArgument, "the filter cannot be used",
		},
		{
			"filter on the key column", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Filter: `_key = "w0"`}},
			connect.CodeInvalidArgument, "the filter cannot be used",
		},
		{
			"bare word", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Filter: `owner`}},
			connect.CodeInvalidArgument, "the filter cannot be used",
		},
		{
			"order by an unknown column", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{OrderBy: "color"}},
			connect.CodeInvalidArgument, `no column "color"`,
		},
		{
			"order by SQL", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{OrderBy: "owner; DROP"}},
			connect.CodeInvalidArgument, "order_by cannot be used",
		},
		{
			"unknown field", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{Fields: []string{"color"}}},
			connect.CodeInvalidArgument, `no column "color"`,
		},
		{
			"page too large", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{PageSize: 1001}},
			connect.CodeInvalidArgument, "page_size",
		},
		{
			"page token of another order", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{OrderBy: "owner", PageToken: token}},
			connect.CodeInvalidArgument, "of another query",
		},
		{
			"page token of another view", "acme",
			&projectionv1.QueryRequest{View: "movements", Query: &projectionv1.Query{PageToken: token}},
			connect.CodeInvalidArgument, "of another query",
		},
		{
			"page token of another tenant", "globex",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{PageToken: token}},
			connect.CodeInvalidArgument, "of another query",
		},
		{
			"forged page token", "acme",
			&projectionv1.QueryRequest{View: "wallets", Query: &projectionv1.Query{PageToken: "WyJ3MCJd"}},
			connect.CodeInvalidArgument, "the page token cannot be used",
		},
		{
			"position of another tenant", "globex",
			&projectionv1.QueryRequest{View: "wallets", MinPosition: f.position(t, "acme")},
			connect.CodeInvalidArgument, "not one that this platform gave to this tenant",
		},
		{"unknown view", "acme", &projectionv1.QueryRequest{View: "purses"}, connect.CodeNotFound, "no view"},
		{
			"tenant in the message", "acme", &projectionv1.QueryRequest{TenantId: "globex", View: "wallets"},
			connect.CodePermissionDenied, "tenant_id",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := f.client.Query(as(t, tc.tenant), tc.req)
			if connect.CodeOf(err) != tc.code || err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("err = %v, want %v with %q", err, tc.code, tc.text)
			}
		})
	}
}

func TestQuery_WaitsForMinPositionWithinDeadline(t *testing.T) {
	overBoth(t, queryWaitsForMinPositionWithinDeadline)
}

func queryWaitsForMinPositionWithinDeadline(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.append(t, "acme", "w", "opened", `{"owner":"ada"}`)
	next := f.positions.Format(natstest.Tenant(t, "acme"), f.sequence["acme"]+1)
	ctx, cancel := context.WithTimeout(as(t, "acme"), 200*time.Millisecond)
	defer cancel()
	_, err := f.client.Get(ctx, &projectionv1.GetRequest{View: "wallets", Key: "w", MinPosition: next})
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded ||
		!strings.Contains(err.Error(), "has not reached min_position") {
		t.Fatalf("err = %v, want DEADLINE_EXCEEDED with the reason", err)
	}
	answered := make(chan error, 1)
	var row map[string]any
	go func() {
		res, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{View: "wallets", Key: "w", MinPosition: next})
		row = res.GetRow().AsMap()
		answered <- err
	}()
	f.append(t, "acme", "w", "deposited", `{"amount":7,"reference":""}`)
	if err := natstest.Await(t, answered, "the query is answered"); err != nil || row["balance"] != 7.0 {
		t.Fatalf("row = %v, %v; want the deposit included", row, err)
	}
}

func TestViews_ResumeFromCheckpointAndAreRebuiltForNewModel(t *testing.T) {
	overBoth(t, viewsResumeFromCheckpointAndAreRebuiltForNewModel)
}

func viewsResumeFromCheckpointAndAreRebuiltForNewModel(t *testing.T, newStore func(t *testing.T) store.Opener) {
	js, dir := natstest.Start(t), newStore(t)
	f := start(t, js, dir, model.Wallet)
	f.fill(t)
	before, err := f.query(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.stop()

	again := start(t, js, dir, model.Wallet)
	again.last, again.versions, again.sequence = f.last, f.versions, f.sequence
	again.whole(t)
	again.append(t, "acme", "w0", "deposited", `{"amount":1000,"reference":""}`)
	after, err := again.query(t, nil)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Fatalf("%v (-before +after):\n%s", err, diff)
	}
	if rich, err := again.query(t, &projectionv1.Query{Filter: "balance > 1000"}); err != nil || len(rich) != 1 {
		t.Fatalf("got %v, %v; want the deposit counted once", rich, err)
	}
	again.stop()

	// Another model revision builds its own generation; the old one stays, so that the model can be reverted.
	changed := start(t, js, dir, func(ctx context.Context) (string, []byte, error) {
		name, document, err := model.Wallet(ctx)
		return name, []byte(
			strings.Replace(string(document), "movements: 0, opened_at", "movements: 100, opened_at", 1),
		), err
	})
	changed.sequence = f.sequence
	changed.whole(t)
	counted, err := changed.query(t, &projectionv1.Query{Filter: "movements > 100"})
	if err != nil || len(counted) != 5 {
		t.Fatalf("got %v, %v; want all views rebuilt by the new rule", counted, err)
	}
	changed.stop()
	back := start(t, js, dir, model.Wallet)
	back.sequence = f.sequence
	back.whole(t)
	if counted, err := back.query(t, &projectionv1.Query{Filter: "movements > 100"}); err != nil || len(counted) != 0 {
		t.Fatalf("got %v, %v; want the old rule's rows again", counted, err)
	}
}

// whole waits until acme's views contain what the journal contained at the start.
func (f *fixture) whole(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); f.service.Ready(t.Context(), natstest.Tenant(t, "acme")) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the views never become complete")
		}
	}
}

func TestViews_AreShownWhenComplete(t *testing.T) { overBoth(t, viewsAreShownWhenComplete) }

func viewsAreShownWhenComplete(t *testing.T, newStore func(t *testing.T) store.Opener) {
	js := natstest.Start(t)
	first := start(t, js, newStore(t), model.Wallet)
	first.fill(t)
	first.stop()
	// Another node has nothing yet, and is held before its first event.
	hold := make(chan struct{})
	open := newStore(t)
	second := start(
		t, js,
		func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (store.Store, error) {
			s, err := open(ctx, tenant, views, origin)
			return held{s, hold}, err
		}, model.Wallet,
	)
	second.sequence = first.sequence
	_, err := second.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "wallets"})
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "are being built") {
		t.Errorf("incomplete views are served: %v", err)
	}
	if err := second.service.Ready(t.Context(), natstest.Tenant(t, "acme")); err == nil {
		t.Error("the node is ready for a tenant whose views are incomplete")
	}
	close(hold)
	second.whole(t)
	if ids, err := second.query(t, nil); err != nil || len(ids) != 5 {
		t.Errorf("%v, %v", ids, err)
	}
}

// held is a store that applies nothing until it is released.
type held struct {
	store.Store

	may <-chan struct{}
}

func (h held) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	select {
	case <-h.may:
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.Store.Apply(ctx, change)
}

func TestReadiness_IsPerTenant(t *testing.T) { overBoth(t, readinessIsPerTenant) }

// breaking is a store that applies nothing while it is broken.
type breaking struct {
	store.Store

	broken *atomic.Bool
}

func (b breaking) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	if b.broken.Load() {
		return errors.New("a fault")
	}
	return b.Store.Apply(ctx, change)
}

// breakingFor returns an opener whose store of one tenant can be broken.
func breakingFor(open store.Opener, tenant string, broken *atomic.Bool) store.Opener {
	return func(ctx context.Context, of contextkit.TenantID, views []*model.View, origin string) (store.Store, error) {
		rows, err := open(ctx, of, views, origin)
		if of.String() == tenant {
			return breaking{rows, broken}, err
		}
		return rows, err
	}
}

func readinessIsPerTenant(t *testing.T, newStore func(t *testing.T) store.Opener) {
	var broken atomic.Bool
	broken.Store(true)
	f := start(t, natstest.Start(t), breakingFor(newStore(t), "acme", &broken), model.Wallet)
	if err := f.service.Ready(t.Context(), contextkit.TenantID{}); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"acme", "globex"} {
		within(t, "the node is ready for "+tenant,
			func() bool { return f.service.Ready(t.Context(), natstest.Tenant(t, tenant)) == nil })
	}
	if err := f.service.Ready(t.Context(), natstest.Tenant(t, "initech")); err == nil {
		t.Fatal("a tenant that is not served is ready")
	}
	// A store that fails stops its tenant, and no other.
	f.append(t, "acme", "w", "opened", `{"owner":"ada"}`)
	deadline := time.After(10 * time.Second)
	var refusal error
	for refusal == nil {
		refusal = f.service.Ready(t.Context(), natstest.Tenant(t, "acme"))
		select {
		case <-deadline:
			t.Fatal("a tenant whose projection does not advance is ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
	const want = "the tenant's projection does not advance: the store of the views refuses a change"
	if refusal.Error() != want {
		t.Errorf("the reason is %q, want %q", refusal, want)
	}
	if err := f.service.Ready(t.Context(), natstest.Tenant(t, "globex")); err != nil {
		t.Fatal(err)
	}
}

func TestReadiness_RecoversWithoutNewEvent(t *testing.T) {
	t.Parallel()
	options := natsserver.Options{StoreDir: t.TempDir()}
	first := natstest.Server(t, &options)
	js := natstest.Connect(t, first)
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	tenants, err := rpc.ParseTenants([]string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := projection.New(t.Context(), projection.Config{}, js, models, tenants, sqliteIn(t), nil,
		zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	options.Port = first.Addr().(*net.TCPAddr).Port
	first.Shutdown()
	first.WaitForShutdown()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	failing := func() bool {
		res, err := service.ListViews(as(t, "acme"), &projectionv1.ListViewsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetGenerations()[0].GetFailing()
	}
	within(t, "the node fails to follow the journal", failing)
	natstest.Server(t, &options)
	within(t, "the node is healthy again", func() bool {
		return !failing() && service.Ready(t.Context(), natstest.Tenant(t, "acme")) == nil
	})
	cancel()
	if err := errors.Join(<-done, service.Close()); err != nil {
		t.Error(err)
	}
}

// TestQuery_NeverReturnsRowsOfAnotherTenant sends hostile input to acme and looks for any data of globex.
func TestQuery_NeverReturnsRowsOfAnotherTenant(t *testing.T) {
	overBoth(t, queryNeverReturnsRowsOfAnotherTenant)
}

func queryNeverReturnsRowsOfAnotherTenant(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	f.fill(t)
	if _, err := f.client.Query(
		as(t, "globex"), &projectionv1.QueryRequest{View: "wallets", MinPosition: f.position(t, "globex")},
	); err != nil {
		t.Fatal(err)
	}
	ctx := as(t, "acme")
	hostile := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		`owner = "globex-only"`, `owner = "globex-only" OR true`, `1 = 1`, `" OR 1=1 --`, `tenant_id = "globex"`,
		`owner:""`, "wallets", "view_wallets", "../globex", "secret",
		`owner > ""`, `globex`, `owner = "x" UNION SELECT * FROM view_wallets`, "owner desc", "_checkpoint", `true`,
		`NOT false`,
	}))
	rapid.Check(t, func(rt *rapid.T) {
		view := rapid.OneOf(rapid.Just("wallets"), hostile).Draw(rt, "view")
		res, err := f.client.Query(ctx, &projectionv1.QueryRequest{View: view, Query: &projectionv1.Query{
			Filter: hostile.Draw(rt, "filter"), OrderBy: rapid.OneOf(rapid.Just(""), hostile).Draw(rt, "order"),
			PageToken: rapid.OneOf(rapid.Just(""), hostile).Draw(rt, "token"),
		}})
		if strings.Contains(fmt.Sprint(res), "globex-only") || strings.Contains(fmt.Sprint(res), "secret") {
			rt.Fatalf("tenants visible to acme: %v", res)
		}
		if code := connect.CodeOf(err); err != nil && code != connect.CodeInvalidArgument &&
			code != connect.CodeNotFound {
			rt.Fatalf("err = %v, want INVALID_ARGUMENT for hostile input", err)
		}
		row, err := f.client.Get(ctx, &projectionv1.GetRequest{View: "wallets", Key: hostile.Draw(rt, "key")})
		if err == nil && strings.Contains(fmt.Sprint(row), "globex-only") {
			rt.Fatalf("tenants visible to acme: %v", row)
		}
	})
}

// sqliteIn returns an opener of empty SQLite stores.
func sqliteIn(t *testing.T) store.Opener { return sqlite.In(t.TempDir()) }
