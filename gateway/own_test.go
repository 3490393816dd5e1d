package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/limit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	gatewayv1 "github.com/headgate/headgate/gen/gateway/v1"
	"github.com/headgate/headgate/gen/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// records reads the audit stream.
type records struct{ consumer jetstream.Consumer }

func (e *edge) records(t *testing.T) records {
	t.Helper()
	consumer, err := e.js.OrderedConsumer(t.Context(), streams.Audit, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return records{consumer}
}

// next returns the next record and its subject.
func (r records) next(t *testing.T) (record auditlog.Record, subject string) {
	t.Helper()
	msg, err := r.consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(msg.Data(), &record); err != nil {
		t.Fatal(err)
	}
	return record, msg.Subject()
}

// bearing returns a context for a call with the token.
func bearing(t *testing.T, token string) context.Context {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	if token != "" {
		info.RequestHeader().Set("authorization", token)
	}
	return ctx
}

func TestLocalMethods_DenialsAreAudited(t *testing.T) {
	for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb"} {
		t.Run(protocol, func(t *testing.T) {
			e := start(t, nil)
			audited := e.records(t)
			session := gatewayv1connect.NewSessionServiceClient(e.client(protocol))
			reflection := grpcreflect.NewClient(e.client(protocol))
			for _, token := range []string{"", "Bearer x"} {
				for procedure, call := range map[string]func() error{
					"/gateway.v1.SessionService/WhoAmI": func() error {
						_, err := session.WhoAmI(bearing(t, token), &gatewayv1.WhoAmIRequest{})
						return err
					},
					"/gateway.v1.SessionService/ListMethods": func() error {
						_, err := session.ListMethods(bearing(t, token), &gatewayv1.ListMethodsRequest{})
						return err
					},
					"/gateway.v1.SessionService/Decide": func() error {
						_, err := session.Decide(bearing(t, token), &gatewayv1.DecideRequest{Procedure: "/x"})
						return err
					},
					"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": func() error {
						stream := reflection.NewStream(bearing(t, token))
						_, err := stream.ListServices()
						return err
					},
				} {
					if (protocol == "grpcweb" || protocol == "connect+json") && strings.HasPrefix(procedure, "/grpc.") {
						continue // their clients use HTTP/1.1, which has no bidirectional streams
					}
					if err := call(); connect.CodeOf(err) != connect.CodeUnauthenticated {
						t.Errorf("%s: %v", procedure, err)
					}
					record, subject := audited.next(t)
					if record.Decision != "denied" || !strings.Contains(record.Reason, "_CREDENTIAL: ") ||
						record.Procedure != procedure || record.Code != "unauthenticated" ||
						subject != "audit._unauthenticated.denied" {
						t.Errorf("%s: audit record %+v on %s", procedure, record, subject)
					}
				}
			}
		})
	}
}

func TestOpenAPI_DenialIsAudited(t *testing.T) {
	e := start(t, nil)
	audited := e.records(t)
	status, text := e.http(t, http.MethodGet, "/openapi.json", "", "authorization", "Bearer x")
	if status != http.StatusUnauthorized || !strings.Contains(text, "the token is invalid") {
		t.Errorf("%d, %s", status, text)
	}
	if record, _ := audited.next(t); record.Decision != "denied" ||
		!strings.HasPrefix(record.Reason, "BAD_CREDENTIAL: ") || record.Procedure != "/openapi.json" ||
		record.TraceID == "" {
		t.Errorf("audit record %+v", record)
	}
	if status, _ := e.http(
		t, http.MethodGet, "/openapi.json", "", "authorization", e.token(t, "acme", "query.read"),
	); status != http.StatusOK {
		t.Errorf("with a credential: status %d", status)
	}
}

// Local methods count against the rate of the credential's tenant, and so do their denials.
func TestLocalCalls_CountAgainstTenantsRate(t *testing.T) {
	for name, ask := range map[string]func(e *edge, token string) bool{
		"SessionService": func(e *edge, token string) bool {
			_, err := gatewayv1connect.NewSessionServiceClient(e.client("grpc")).WhoAmI(bearing(t, token),
				&gatewayv1.WhoAmIRequest{})
			return connect.CodeOf(err) == connect.CodeResourceExhausted
		},
		"denial of SessionService": func(e *edge, token string) bool {
			_, err := gatewayv1connect.NewSessionServiceClient(e.client("grpc")).Decide(bearing(t, token),
				&gatewayv1.DecideRequest{Procedure: "/x", TenantId: "globex"})
			return connect.CodeOf(err) == connect.CodeResourceExhausted
		},
		"page request": func(e *edge, token string) bool {
			status, _ := e.http(t, http.MethodGet, "/openapi.json", "", "authorization", token)
			return status == http.StatusTooManyRequests
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, nil)
			e.edge.SetTenants(
				map[contextkit.TenantID]gateway.TenantState{
					natstest.Tenant(t, "acme"): {Limits: limit.Config{Rate: 1e-6, Burst: 2}},
				},
			)
			token := e.token(t, "acme", "query.read")
			limited := 0
			for range 4 {
				if ask(e, token) {
					limited++
				}
			}
			if limited < 2 {
				t.Errorf("%d of 4 calls rejected, want at least 2", limited)
			}
			if ask(e, e.token(t, "globex", "query.read")) {
				t.Error("another tenant is rejected")
			}
		})
	}
}

func TestDecide_OtherTenantsAreForFleetReaders(t *testing.T) {
	const procedure = "/projection.gateway.v1.QueryService/Query"
	e := start(t, nil)
	e.edge.SetTenants(
		map[contextkit.TenantID]gateway.TenantState{natstest.Tenant(t, "globex"): {Suspended: true, Reason: "unpaid"}},
	)
	audited := e.records(t)
	client := gatewayv1connect.NewSessionServiceClient(e.client("grpc"))
	ask := func(token, tenant, procedure string) (*gatewayv1.DecideResponse, error) {
		return client.Decide(bearing(t, token), &gatewayv1.DecideRequest{
			Procedure: procedure,
			Tenants:   []string{"*"},
			Rights:    []string{"query.read"},
			TenantId:  tenant,
			Resource:  "v",
		})
	}
	attacker := e.token(t, "acme", "query.read", "gateway.explain")
	var answers []string
	for _, tenant := range []string{"globex", "initech", "unknown"} { // suspended, served, not known
		for _, procedure := range []string{procedure, "/no.Such/Method"} {
			res, err := ask(attacker, tenant, procedure)
			if res != nil || connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s: %v, %v", tenant, res, err)
			}
			answers = append(answers, connect.CodeOf(err).String()+err.Error())
			if record, _ := audited.next(t); record.Decision != "denied" ||
				!strings.HasPrefix(record.Reason, "TENANT_MISMATCH: ") ||
				record.Procedure != "/gateway.v1.SessionService/Decide" || record.Principal != "app" ||
				record.Resource != tenant {
				t.Errorf("%s: audit record %+v", tenant, record)
			}
		}
	}
	// A call that names no tenant is for its principal's only tenant.
	for _, tenant := range []string{"globex", "initech", "unknown"} {
		res, err := client.Decide(bearing(t, attacker), &gatewayv1.DecideRequest{
			Procedure: procedure,
			Tenants:   []string{tenant},
			Rights:    []string{"query.read"},
			Resource:  "v",
		})
		if res != nil || connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s for the principal: %v, %v", tenant, res, err)
		}
		if record, _ := audited.next(t); record.Decision != "denied" || record.Resource != tenant {
			t.Errorf("%s for the principal: audit record %+v", tenant, record)
		}
	}
	for _, answer := range answers {
		if answer != answers[0] {
			t.Errorf("responses differ: %q, %q", answer, answers[0])
		}
	}
	for _, tc := range []struct {
		name, token, tenant string
		node                bool
		reason              string
	}{
		{"caller's tenant", attacker, "acme", true, "is held"},
		{"no tenant", attacker, "", false, "none is named"},
		{"other tenant, with fleet.read", e.token(t, "acme", "fleet.read"), "globex", true, "suspended"},
		{"any tenant, credential for all tenants", e.token(t, "*", "query.read"), "globex", true, "suspended"},
		{"no tenant, with fleet.read", e.token(t, "acme", "fleet.read"), "", true, "none is named"},
	} {
		res, err := ask(tc.token, tc.tenant, procedure)
		if err != nil || (res.GetNode() != "") != tc.node || !strings.Contains(res.GetReason(), tc.reason) {
			t.Errorf("%s: %v, %v", tc.name, res, err)
		}
	}
	if _, err := ask(
		e.token(t, "acme", "fleet.read:x"), "globex", procedure,
	); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("narrowed right: %v", err)
	}
	long := strings.Repeat("x", 100_000)
	if _, err := client.Decide(
		bearing(t, attacker), &gatewayv1.DecideRequest{Procedure: procedure, Rights: []string{long}},
	); connect.CodeOf(err) != connect.CodeInvalidArgument || len(err.Error()) > 5000 {
		t.Errorf("response to a long right has %d bytes", len(err.Error()))
	}
}

func TestAudit_OperatorsCallsForTenantsAreRecorded(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, func(config *gateway.Config) { config.Platform = []string{"runner"} }, ticks.register,
		ticks.set(t))
	audited := e.records(t)
	rights := []string{"query.read", "command.submit", "tick.read"}
	tokenOf := func(subject string, tenants ...string) string {
		principal, err := auth.NewPrincipal(subject, tenants, rights)
		if err != nil {
			t.Fatal(err)
		}
		token, err := e.issuer.Issue(principal, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
	queries := queriesconnect.NewQueryServiceClient(e.client("grpc"))
	commands := commandsconnect.NewCommandServiceClient(e.client("grpc"))
	query := func(token string) {
		if _, err := queries.Query(
			bearing(t, token), &projectionv1.QueryRequest{TenantId: "acme", View: "v"},
		); err != nil {
			t.Error(err)
		}
	}
	submit := func(token string) {
		if _, err := commands.Submit(bearing(t, token), &aggregatev1.SubmitRequest{
			TenantId:      "acme",
			AggregateType: "wallet",
			AggregateId:   "a",
			Command:       "open",
		}); err != nil {
			t.Error(err)
		}
	}
	expect := func(subject, procedure, principal string) {
		t.Helper()
		record, on := audited.next(t)
		if record.Decision != "allowed" || record.Procedure != procedure || record.Principal != principal ||
			record.Tenant != "acme" || on != subject {
			t.Errorf("audit record %+v on %s, want %s by %s on %s", record, on, procedure, principal, subject)
		}
	}
	// Calls of a tenant's principals, and of the platform, leave no record.
	query(tokenOf("app", "acme"))
	query(tokenOf("runner", "*"))
	submit(tokenOf("runner", "*"))
	query(tokenOf("operator", "*"))
	expect("audit.acme.read", "/projection.gateway.v1.QueryService/Query", "operator")
	submit(tokenOf("operator", "*"))
	expect("audit.acme.operator", "/aggregate.gateway.v1.CommandService/Submit", "operator")

	// A stream is recorded when it begins.
	ctx := bearing(t, tokenOf("operator", "*"))
	info, _ := connect.CallInfoForClientContext(ctx)
	info.RequestHeader().Set(contextkit.HeaderTenantID, "acme")
	go func() { ticks.next <- 0 }() // the headers come with it
	stream, err := e.client("grpc").CallServerStream(
		ctx, connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: ticks.desc},
		dynamicpb.NewMessage(ticks.desc.Input()),
	)
	if err != nil {
		t.Fatal(err)
	}
	expect("audit.acme.operator", "/test.Ticker/Watch", "operator") // it does not declare that it changes nothing
	<-ticks.ask
	close(ticks.next)
	for stream.Receive(dynamicpb.NewMessage(ticks.desc.Output())) == nil {
	}
	_ = stream.Close()
	<-ticks.done

	// The end of the stream leaves no further record.
	query(tokenOf("last", "*"))
	expect("audit.acme.read", "/projection.gateway.v1.QueryService/Query", "last")
}

// An attacker with a credential for one tenant receives the same answer for every other tenant,
// whether it is suspended, served, unknown or not a valid name.
func TestTenant_DenialRevealsNothingAboutTenant(t *testing.T) {
	e := start(t, nil)
	e.edge.SetTenants(
		map[contextkit.TenantID]gateway.TenantState{
			natstest.Tenant(t, "globex"): {Suspended: true, Reason: "unpaid"}, natstest.Tenant(t, "initech"): {},
		},
	)
	token := e.token(t, "acme", "query.read", "command.submit", "workflow.read", "runner.admin", "audit.read",
		"gateway.explain")
	for _, request := range []struct{ method, path, body string }{
		{http.MethodPost, "/v1/query/v", `{}`},
		{http.MethodPost, "/v1/commands/wallet/a/open", `{"payload":{}}`},
		{http.MethodPost, "/projection.gateway.v1.QueryService/ListViews", `{}`},
		{
			http.MethodPost, "/aggregate.gateway.v1.CommandService/GetAggregate",
			`{"aggregateType":"wallet","aggregateId":"a"}`,
		},
		{http.MethodPost, "/runner.admin.v1.RunnerAdmin/ListWorkflows", `{}`},
		{http.MethodPost, "/runner.admin.v1.RunnerAdmin/PauseTenant", `{}`},
		{http.MethodPost, "/runner.admin.v1.RunnerAdmin/Status", `{}`},
	} {
		var first string
		for _, tenant := range []string{"globex", "initech", "unknown"} {
			header := []string{
				"authorization", token, contextkit.HeaderTenantID, tenant, contextkit.HeaderExplain, "1",
				"content-type", "application/json",
			}
			status, text := e.http(t, request.method, request.path, request.body, header...)
			if status != http.StatusForbidden || strings.Contains(text, "suspended") {
				t.Errorf("%s for %s: %d, %s", request.path, tenant, status, text)
			}
			if first == "" {
				first = text
			}
			if text != first {
				t.Errorf("%s for %s: %s; for another tenant: %s", request.path, tenant, text, first)
			}
		}
	}
}

// logged collects log lines.
type logged struct {
	mu    sync.Mutex
	lines []string
}

// Write implements [io.Writer].
func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *logged) holds(texts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// The client learns that its credential is rejected, and the log has the reason.
func TestCredential_LogHasReasonOfRejection(t *testing.T) {
	var (
		config gateway.Config
		log    logged
	)
	first := start(t, func(c *gateway.Config) { config = *c })
	e := first.second(t, config, zerolog.New(&log))
	good := strings.TrimPrefix(e.token(t, "acme", "query.read"), "Bearer ")
	_, rest, _ := strings.Cut(good, ".")
	header := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) + "." + rest }
	for token, reason := range map[string]string{
		header(`{"alg":"EdDSA","kid":"k","crit":["exp"],"exp":1}`): "header member crit is not supported",
		header(`{"alg":"EdDSA","kid":"k","typ":"JWS"}`):            "wrong type",
		good + "=": "malformed signature: it is not canonical base64url",
		"x.y":      "malformed: it does not consist of header, claims and signature",
	} {
		for _, protocol := range []string{"rest", "native grpc"} {
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", "Bearer "+token)
			if got.code != connect.CodeUnauthenticated || got.err.Message() != auth.ErrBadToken.Error() {
				t.Errorf("%s, over %s: the client received %v", reason, protocol, got.err)
			}
		}
		eventually(t, "log line: "+reason,
			func() bool { return log.holds(queriesconnect.QueryServiceQueryProcedure, reason) })
	}
}
