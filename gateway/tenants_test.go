package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/limit"
	gatewayv1 "github.com/headgate/headgate/gen/gateway/v1"
	"github.com/headgate/headgate/gen/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/timeline"
)

func TestSuspension_RejectsCallsExceptOperators(t *testing.T) {
	e := start(t, nil)
	token, helper := e.token(t, "acme", "query.read"), e.token(t, "*", "query.read", "fleet.admin")
	acme := natstest.Tenant(t, "acme")
	query := func(token, tenant string) error {
		if err := e.query(
			t, "connect+proto", &projectionv1.QueryRequest{View: "v", TenantId: tenant}, "authorization", token,
		).err; err != nil {
			return err
		}
		return nil
	}
	e.edge.SetTenants(map[contextkit.TenantID]gateway.TenantState{acme: {Suspended: true, Reason: "unpaid"}})
	if err := query(token, ""); connect.CodeOf(err) != connect.CodePermissionDenied ||
		!strings.Contains(err.Error(), "unpaid") {
		t.Errorf("call of the tenant: %v", err)
	}
	if err := query(helper, "acme"); err != nil {
		t.Errorf("call of an operator: %v", err)
	}
	if err := query(e.token(t, "globex", "query.read"), ""); err != nil {
		t.Errorf("call of another tenant: %v", err)
	}
	e.edge.SetTenants(nil)
	if err := query(token, ""); err != nil {
		t.Errorf("after the tenant was resumed: %v", err)
	}
}

func TestQuota_AppliesPerTenant(t *testing.T) {
	e := start(t, nil)
	e.edge.SetTenants(
		map[contextkit.TenantID]gateway.TenantState{
			natstest.Tenant(t, "acme"): {Limits: limit.Config{Rate: 0.001, Burst: 2}},
		},
	)
	count := func(tenant string) (answered int) {
		token := e.token(t, tenant, "query.read")
		for range 5 {
			if e.query(t, "connect+proto", &projectionv1.QueryRequest{View: "v"}, "authorization", token).err == nil {
				answered++
			}
		}
		return answered
	}
	if acme, globex := count("acme"), count("globex"); acme != 2 || globex != 5 {
		t.Errorf("acme made %d of 5 calls, globex %d; want 2 and 5", acme, globex)
	}
}

func TestSession_ReportsPrincipalAndPolicies(t *testing.T) {
	e := start(t, nil)
	client := gatewayv1connect.NewSessionServiceClient(e.client("connect+json"))
	if _, err := client.WhoAmI(
		t.Context(), &gatewayv1.WhoAmIRequest{},
	); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("without a credential: %v", err)
	}
	as := func() context.Context {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("authorization", e.token(t, "acme", "query.read:w*", "fleet.read"))
		return ctx
	}
	who, err := client.WhoAmI(as(), &gatewayv1.WhoAmIRequest{})
	if err != nil || who.GetSubject() != "app" || who.GetTenants()[0] != "acme" ||
		who.GetRights()[0] != "query.read:w*" {
		t.Errorf("%v, %v", who, err)
	}
	methods, err := client.ListMethods(as(), &gatewayv1.ListMethodsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	const procedure = "/projection.gateway.v1.QueryService/Query"
	listed := false
	for _, method := range methods.GetMethods() {
		if method.GetProcedure() == procedure {
			listed = method.GetRight() == "query.read" && method.GetTenantScoped() &&
				method.GetUpstream() == "projection" && strings.HasPrefix(method.GetHttp()[0], "POST /v1/query/")
		}
	}
	if !listed {
		t.Errorf("wrong entry of %s: %v", procedure, methods)
	}

	// Every decision equals that of the pipeline.
	for _, c := range []struct {
		tenants, rights []string
		tenant, view    string
		allowed         bool
	}{
		{[]string{"acme"}, []string{"query.read"}, "acme", "wallets", true},
		{[]string{"acme"}, []string{"query.read:w*"}, "acme", "wallets", true},
		{[]string{"acme"}, []string{"query.read:x*"}, "acme", "wallets", false},
		{[]string{"acme"}, []string{"fleet.read"}, "acme", "wallets", false},
		{[]string{"acme"}, []string{"query.read"}, "globex", "wallets", false},
		{[]string{"*"}, []string{"query.read"}, "globex", "wallets", true},
		{[]string{"*"}, []string{"query.read"}, "", "wallets", false},
		{[]string{"acme"}, []string{"query.read"}, "", "wallets", true},
	} {
		decided, err := client.Decide(as(), &gatewayv1.DecideRequest{
			Procedure: procedure,
			Tenants:   c.tenants,
			Rights:    c.rights,
			TenantId:  c.tenant,
			Resource:  c.view,
		})
		if err != nil || decided.GetAllowed() != c.allowed || decided.GetReason() == "" || decided.GetNode() != "p" {
			t.Errorf("%+v: %v, %v", c, decided, err)
		}
		called := e.query(t, "connect+proto", &projectionv1.QueryRequest{View: c.view, TenantId: c.tenant},
			"authorization", e.token(t, strings.Join(c.tenants, ","), c.rights...)).err
		if (called == nil) != c.allowed {
			t.Errorf("%+v: result of the pipeline %v", c, called)
		}
	}
	// The reason lists the missing rights that the node checks.
	for _, c := range []struct {
		rights           []string
		resource         string
		allowed, missing bool
	}{
		{[]string{"command.submit"}, "transfer.complete", true, true},
		{[]string{"command.submit"}, "", true, true},
		{
			[]string{"command.submit:transfer.complete", "command.internal:transfer.fail"}, "transfer.complete", true,
			true,
		},
		{[]string{"command.submit", "command.internal:transfer.complete"}, "transfer", true, true},
		{[]string{"command.submit", "command.internal:transfer.complete"}, "transfer.complete", true, false},
		{[]string{"command.submit", "command.internal:transfer"}, "transfer.complete", true, false},
		{[]string{"command.submit", "command.internal"}, "transfer.complete", true, false},
		{[]string{"command.internal"}, "transfer.complete", false, false},
	} {
		for _, method := range []string{"Submit", "SubmitBatch"} {
			decided, err := client.Decide(as(), &gatewayv1.DecideRequest{
				Procedure: "/aggregate.gateway.v1.CommandService/" + method,
				Tenants:   []string{"acme"},
				Rights:    c.rights,
				Resource:  c.resource,
			})
			if err != nil || decided.GetAllowed() != c.allowed ||
				strings.Contains(decided.GetReason(), `"command.internal" is missing`) != c.missing {
				t.Errorf("%s %+v: %v, %v", method, c, decided, err)
			}
		}
	}
	if decided, err := client.Decide(as(), &gatewayv1.DecideRequest{Procedure: "/no.Such/Method"}); err != nil ||
		decided.GetAllowed() {
		t.Errorf("%v, %v", decided, err)
	}
	if _, err := client.Decide(
		as(), &gatewayv1.DecideRequest{Procedure: procedure, Rights: []string{"?"}},
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("missing right: %v", err)
	}
}

func TestTimeline_RecordsChangesAndFailures(t *testing.T) {
	js := natstest.Start(t)
	recorder, err := timeline.New(js)
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, func(c *gateway.Config) { c.Timeline = recorder })
	token := e.token(t, "acme", "query.read", "command.submit")
	e.http(t, http.MethodPost, "/v1/commands/wallet/a/open", `{"payload":{}}`, "authorization", token,
		contextkit.HeaderCorrelationID, "writes")
	e.http(t, http.MethodPost, "/v1/query/v", `{}`, "authorization", token, contextkit.HeaderCorrelationID, "reads")
	e.node.set(func(context.Context, int) error { return connect.NewError(connect.CodeInternal, "broken") })
	e.http(t, http.MethodPost, "/v1/query/v", `{}`, "authorization", token, contextkit.HeaderCorrelationID, "fails")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it publishes what was recorded before it ends
	if err := recorder.Run(ctx, "g1"); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"writes": "ok", "reads": "", "fails": "internal"} {
		spans, _, err := timeline.Read(t.Context(), js, natstest.Tenant(t, "acme"), id)
		if err != nil || (want == "") != (len(spans) == 0) ||
			want != "" && (spans[0].Code != want || spans[0].Node != "g1" || spans[0].Kind != timeline.KindCall) {
			t.Errorf("%s: %+v, %v", id, spans, err)
		}
	}
}
