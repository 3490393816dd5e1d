package node

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
)

// unreadiness is why a role takes no calls for a tenant; "" if it takes them.
type unreadiness struct{ gateway, aggregate, projection, runner, control string }

func (u unreadiness) of(role string) string {
	return map[string]string{
		"gateway": u.gateway, "aggregate": u.aggregate, "projection": u.projection, "runner": u.runner,
		"control": u.control,
	}[role]
}

// readiness asks a role whether it is ready, by HTTP; for a tenant unless it is "".
func (d *devPlatform) readiness(t *testing.T, role, tenant string) (ready bool, reason string) {
	t.Helper()
	url := map[string]string{
		"gateway":    d.edge.gateway.AdminURL(),
		"aggregate":  d.aggregate.server.URL(),
		"projection": d.projection.server.URL(),
		"runner":     d.runner.server.URL(),
		"control":    d.control.server.URL(),
	}[role] + "/ready"
	if tenant != "" {
		url += "?tenant=" + tenant
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct{ Status, Reason string }
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	ready = res.StatusCode == http.StatusOK
	if ready != (body.Status == "ready") || !ready && res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s: status %d: %q", url, res.StatusCode, body.Status)
	}
	return ready, body.Reason
}

// serving asks a node by gRPC's health protocol whether it takes calls; for a tenant unless it is "".
func (d *devPlatform) serving(t *testing.T, role, tenant string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant-id", tenant)
	}
	res, err := healthv1.NewHealthClient(d.conns[role]).Check(ctx, &healthv1.HealthCheckRequest{},
		grpc.WaitForReady(true))
	if code := status.Code(err); code != codes.OK && code != codes.NotFound && code != codes.FailedPrecondition {
		t.Fatalf("health of %s for %q: %v", role, tenant, err)
	}
	return res.GetStatus() == healthv1.HealthCheckResponse_SERVING
}

// Each role's readiness in each state of a tenant, and of the runner: what a tenant's calls would get, and never more
// than one tenant's state in the answer about another.
func TestReadiness_OfEachRoleInEachState(t *testing.T) {
	d := startContract(t)
	operator := d.token(t, "*")
	d.note(t, "acme", 1) // its workflow is stuck and one of its views fails: the tenant is served
	d.stuck(t, "acme", 1)
	d.failedAt(t, "acme")
	change := func(name string, req any) {
		t.Helper()
		m := method(t, "control.v1.TenantService.SuspendTenant")
		switch req := req.(type) {
		case *controlv1.SuspendTenantRequest:
			d.mustCall(t, "gateway", m, req, operator...)
		case *adminv1.PauseTenantRequest:
			d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.PauseTenant"), req, operator...)
		case *adminv1.DrainRequest:
			d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.Drain"), req, operator...)
		default:
			t.Fatalf("%s: %T", name, req)
		}
	}
	eventually(t, "control lists the tenants", func() bool {
		res := d.mustCall(t, "gateway", method(t, "control.v1.TenantService.ListTenants"),
			&controlv1.ListTenantsRequest{}, operator...)
		return len(res.(*controlv1.ListTenantsResponse).GetTenants()) == 3
	})
	change("suspend", &controlv1.SuspendTenantRequest{TenantId: "globex", Reason: "unpaid"})
	change("pause", &adminv1.PauseTenantRequest{TenantId: "initech"})
	roles := []string{"gateway", "aggregate", "projection", "runner", "control"}
	check := func(state, tenant string, want unreadiness) {
		t.Helper()
		for _, role := range roles {
			reason := want.of(role)
			var got string
			eventually(t, state+": "+role+" has the wanted readiness", func() bool {
				ready, why := d.readiness(t, role, tenant)
				got = why
				return ready == (reason == "") && strings.Contains(why, reason)
			})
			for _, other := range []string{"acme", "globex", "initech"} {
				if other != tenant && strings.Contains(got, other) {
					t.Errorf("%s: %s shows another tenant: %s", state, role, got)
				}
			}
			if serving := role == "gateway" || d.serving(t, role, tenant) == (reason == ""); !serving {
				t.Errorf("%s: the health of %s for %q contradicts /ready", state, role, tenant)
			}
		}
	}
	check("serving", "", unreadiness{})
	check("stuck", "acme", unreadiness{})
	check("unknown", "nosuch", unreadiness{
		gateway:    "not served here",
		aggregate:  "not served here",
		projection: "not served here",
		runner:     "not served here",
	})
	check("suspended", "globex", unreadiness{gateway: "suspended: unpaid", runner: "suspended"})
	check("paused", "initech", unreadiness{runner: "paused"})
	change("drain", &adminv1.DrainRequest{})
	check("drained", "", unreadiness{runner: "drained"})
	check("drained", "acme", unreadiness{runner: "drained"})
}
