package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
)

// second starts another gateway with the same nodes and NATS.
func (e *edge) second(t *testing.T, config gateway.Config, log zerolog.Logger) *edge {
	t.Helper()
	catalog, err := policy.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	return e.secondWith(t, config, catalog, log)
}

// secondWith is second with further services.
func (e *edge) secondWith(t *testing.T, config gateway.Config, catalog *policy.Catalog, log zerolog.Logger) *edge {
	t.Helper()
	g, err := gateway.New(config, catalog, e.routes, e.js, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	other := *e
	other.edge, other.url, other.grpc, other.admin = g, g.URL(), "http://"+g.GRPCAddr(), g.AdminURL()
	return &other
}

// flood makes a number of denied calls with large resources at each gateway.
func flood(t *testing.T, token string, calls int, gateways ...*edge) (made uint64) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"view": huge["control"]})
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		calls /= 4 // as many together, for a shorter time
	}
	const workers = 8
	var all sync.WaitGroup
	for _, e := range gateways {
		for range workers {
			all.Go(func() {
				for range calls / workers {
					if got := e.ask(
						t, e.plain, http.MethodPost, e.url+"/projection.gateway.v1.QueryService/Query", body,
						http.Header{"Authorization": {token}, "Content-Type": {"application/json"}},
					); got.status != http.StatusForbidden {
						t.Errorf("status %d: %.200s", got.status, got.text)
					}
				}
			})
		}
	}
	all.Wait()
	return uint64(len(gateways) * workers * (calls / workers))
}

// Denials of calls with large resources are recorded within bounds, and neither displace nor delay
// records of other callers.
func TestAudit_LargeDenialsDoNotDelayOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes thousands of calls; other tests run the same code under the race detector")
	}
	e := start(t, nil)
	e.http(t, http.MethodPost, "/v1/query/wallets", "{}", "Authorization",
		e.token(t, "acme", "query.read")) // connections are made
	before := heapInUse()
	token, flooded := e.token(t, "acme", "query.read:wallets"), make(chan struct{})
	go func() {
		defer close(flooded)
		flood(t, token, 320, e)
	}()
	for more := true; more; {
		losesNothing(t, e, "while denials flood the audit log")
		select {
		case <-flooded:
			more = false
		default:
		}
	}
	if grown := heapInUse() - before; grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	e.http(t, http.MethodPost, "/v1/query/secrets", "{}", "Authorization", e.token(t, "globex", "query.read:wallets"))
	e.http(t, http.MethodPost, "/v1/query/wallets", "{}", "X-Tenant-Id", "globex")
	e.http(t, http.MethodPost, "/admin/runner/drain", "{}", "Authorization", e.token(t, "*", "runner.admin"))
	for subject, want := range map[string]string{
		auditlog.Subject("acme", auditlog.ClassDenied):                         "…(97280 bytes)",
		auditlog.Subject("globex", auditlog.ClassDenied):                       "secrets",
		auditlog.Subject(streams.AccountUnauthenticated, auditlog.ClassDenied): "",
		auditlog.Subject(streams.AccountPlatform, auditlog.ClassOperator):      "",
	} {
		consumer, err := e.js.OrderedConsumer(t.Context(), streams.Audit,
			jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
		if err != nil {
			t.Fatal(err)
		}
		msg, err := consumer.Next(jetstream.FetchMaxWait(20 * time.Second))
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		var record audit.Record
		if err := json.Unmarshal(msg.Data(), &record); err != nil || !strings.HasSuffix(record.Resource, want) ||
			len(msg.Data()) > 4<<10 {
			t.Errorf("%s: %d bytes, %v: %.300s", subject, len(msg.Data()), err, msg.Data())
		}
	}
}

// Denials of a tenant's calls, of any size and at any number of gateways, do not change other
// tenants' timelines.
func TestTimeline_LargeDenialsDoNotDisplaceOtherTenantsSpans(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes thousands of calls; other tests run the same code under the race detector")
	}
	js := natstest.Start(t)
	var timelines []*timeline.Recorder
	for range 2 {
		timeline, err := timeline.New(js)
		if err != nil {
			t.Fatal(err)
		}
		timelines = append(timelines, timeline)
	}
	var config gateway.Config
	first := start(t, func(c *gateway.Config) {
		c.Timeline = timelines[0]
		config = *c
	})
	first.js = js // of the timelines
	config.Timeline = timelines[1]
	second := first.second(t, config, zerolog.Nop())

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for n, timeline := range timelines {
		running.Go(func() {
			if err := timeline.Run(ctx, fmt.Sprint("g", n)); err != nil {
				t.Error(err)
			}
		})
	}
	ended := sync.OnceFunc(func() { cancel(); running.Wait() }) // what is recorded is published
	t.Cleanup(ended)

	quiet := func(id string) {
		for _, e := range []*edge{first, second} {
			if status, text := e.http(
				t, http.MethodPost, "/v1/commands/wallet/a/open", `{"payload":{}}`, "Authorization",
				e.token(t, "globex", "command.submit"), contextkit.HeaderCorrelationID, id,
			); status != http.StatusOK {
				t.Fatal(status, text)
			}
		}
	}
	quiet("before")
	// A caller without a credential also names the other tenant.
	for range 50 {
		first.http(t, http.MethodPost, "/v1/query/wallets", "{}", contextkit.HeaderTenantID, "globex",
			contextkit.HeaderCorrelationID, "before")
	}
	made := flood(t, first.token(t, "acme", "query.read:wallets"), 240, first, second)
	quiet("amid")
	ended()
	for _, id := range []string{"before", "amid"} {
		spans, _, err := timeline.Read(t.Context(), js, natstest.Tenant(t, "globex"), id)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, span := range spans {
			if span.Code == "ok" {
				found++
			}
		}
		if found != 2 {
			t.Errorf("%s the flood: %d of 2 calls in the timeline", id, found)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("timeline.>"))
	if err != nil {
		t.Fatal(err)
	}
	accounts := map[string]uint64{}
	for subject, messages := range info.State.Subjects {
		accounts[strings.Split(subject, ".")[1]] += messages
	}
	if accounts["globex"] != 4 || accounts["_unauthenticated"] != 50 || accounts["acme"] != made {
		t.Errorf("%v spans stored", accounts)
	}
}
