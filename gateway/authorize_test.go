package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/streams"
)

func TestTenant_MustAgreeWithCredential(t *testing.T) {
	e := start(t, nil)
	one, both := e.token(t, "acme", "query.read"), e.token(t, "acme,globex", "query.read")
	cases := []struct {
		name, token, header, body string
		want                      string // tenant that the node sees, or "" when refused
		code                      connect.Code
	}{
		{"nowhere", one, "", "", "acme", 0},
		{"in the header", one, "acme", "", "acme", 0},
		{"in the message", one, "", "acme", "acme", 0},
		{"foreign tenant in the header", one, "globex", "", "", connect.CodePermissionDenied},
		{"foreign tenant in the message", one, "", "globex", "", connect.CodePermissionDenied},
		{
			"own tenant in the header, foreign tenant in the message", one, "acme", "globex", "",
			connect.CodePermissionDenied,
		},
		{
			"foreign tenant in the header, own tenant in the message", one, "globex", "acme", "",
			connect.CodePermissionDenied,
		},
		{"no tenant, credential for two", both, "", "", "", connect.CodeInvalidArgument},
		{"in the header, credential for two", both, "globex", "", "globex", 0},
		{"in the message, credential for two", both, "", "globex", "globex", 0},
		{"two tenants of the credential", both, "acme", "globex", "", connect.CodePermissionDenied},
		{"no tenant", one, "*", "", "", connect.CodeInvalidArgument},
	}
	for _, protocol := range protocols {
		for _, tc := range cases {
			t.Run(protocol+"/"+tc.name, func(t *testing.T) {
				e.node.set(nil)
				header := []string{"Authorization", tc.token}
				if tc.header != "" {
					header = append(header, "X-Tenant-Id", tc.header)
				}
				got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets", TenantId: tc.body}, header...)
				calls, _, rc, _, _ := e.node.seen()
				if got.code != tc.code || (calls > 0) != (tc.want != "") ||
					(tc.want != "" && rc.TenantID.String() != tc.want) {
					t.Fatalf("code %v, %d calls of the node for %q; want %v and %q", got.code, calls, rc.TenantID,
						tc.code, tc.want)
				}
			})
		}
		t.Run(protocol+"/twice in the header", func(t *testing.T) {
			e.node.set(nil)
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", one,
				"X-Tenant-Id", "acme", "X-Tenant-Id", "acme")
			if calls, _, _, _, _ := e.node.seen(); got.code != connect.CodeInvalidArgument || calls != 0 {
				t.Fatalf("code %v, %d calls of the node", got.code, calls)
			}
		})
	}
}

func TestTenant_IgnoredPlacesAreNotForwarded(t *testing.T) {
	e := start(t, nil)
	one := e.token(t, "acme", "query.read", "runner.admin", "workflow.read")
	// A place that counts names another tenant: the call is denied before it reaches a node.
	for name, refused := range map[string]struct{ method, path, body string }{
		"in the query":               {http.MethodGet, "/v1/query/wallets?tenant_id=globex", ""},
		"in the query, by JSON name": {http.MethodGet, "/v1/query/wallets?tenantId=globex", ""},
		"twice in the query":         {http.MethodGet, "/v1/query/wallets?tenant_id=acme&tenant_id=globex", ""},
		"under both names":           {http.MethodGet, "/v1/query/wallets?tenant_id=acme&tenantId=globex", ""},
		"in the path":                {http.MethodPost, "/admin/runner/tenants/globex/pause", "{}"},
		"in the path, encoded":       {http.MethodPost, "/admin/runner/tenants/%67lobex/pause", "{}"},
		"in the path and the body":   {http.MethodPost, "/admin/runner/tenants/acme/pause", `{"tenantId":"globex"}`},
		"in the path of a workflow":  {http.MethodGet, "/admin/runner/tenants/globex/workflows/transfer/t", ""},
		"in Connect's message of GET": {
			http.MethodGet,
			`/projection.gateway.v1.QueryService/Query?connect=v1&encoding=json&message={"view":"wallets","tenantId":"globex"}`,
			"",
		},
		"in the body, under two names": {
			http.MethodPost, "/v1/query/wallets", `{"tenantId":"acme","tenant_id":"globex"}`,
		},
	} {
		status, text := e.http(t, refused.method, refused.path, refused.body, "Authorization", one)
		if status != http.StatusForbidden && status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if calls, _, _, _, _ := e.node.seen(); calls != 0 {
		t.Fatalf("%d calls of the node", calls)
	}
	// A place that does not count changes nothing.
	for _, protocol := range protocols {
		for name, header := range map[string][]string{
			"NATS header":        {"Tenant-Id", "globex"},
			"similar header":     {"X_Tenant_Id", "globex"},
			"binary header":      {"X-Tenant-Id-Bin", connect.EncodeBinaryHeader([]byte("globex"))},
			"gRPC-like prefix":   {"Grpc-X-Tenant-Id", "globex"},
			"forwarded identity": {"X-Forwarded-User", "globex"},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				e.node.set(nil)
				req := &projectionv1.QueryRequest{View: "wallets"}
				if protocol != "rest" && protocol != "connect+get" {
					req.Metadata = map[string]string{
						"tenant_id": "globex", "x-tenant-id": "globex", "tenant-id": "globex",
					}
				}
				got := e.query(t, protocol, req, append(header, "Authorization", one)...)
				if _, seen, rc, _, query := e.node.seen(); got.err != nil || rc.TenantID.String() != "acme" ||
					query.GetTenantId() != "acme" || len(seen["x-tenant-id"]) != 1 {
					t.Errorf("%v; the node's tenant is %q, x-tenant-id %q", got.err, rc.TenantID, seen["x-tenant-id"])
				}
			})
		}
	}
}

func TestAuthorize_MissingRightIsDenied(t *testing.T) {
	e := start(t, nil)
	for _, protocol := range protocols {
		for name, tc := range map[string]struct {
			token string
			code  connect.Code
		}{
			"no credential":   {"", connect.CodeUnauthenticated},
			"no rights":       {e.token(t, "acme"), connect.CodePermissionDenied},
			"other right":     {e.token(t, "acme", "command.submit"), connect.CodePermissionDenied},
			"other view":      {e.token(t, "acme", "query.read:orders*"), connect.CodePermissionDenied},
			"the view":        {e.token(t, "acme", "query.read:wallets"), 0},
			"views by prefix": {e.token(t, "acme", "query.read:wal*"), 0},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				e.node.set(nil)
				var header []string
				if tc.token != "" {
					header = []string{"Authorization", tc.token}
				}
				got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, header...)
				if calls, _, _, _, _ := e.node.seen(); got.code != tc.code || (calls > 0) != (tc.code == 0) {
					t.Fatalf("code %v, %d calls of the node; want %v", got.code, calls, tc.code)
				}
			})
		}
	}
}

func TestAuthorize_EveryCommandOfBatchNeedsRight(t *testing.T) {
	e := start(t, nil)
	wallets := e.token(t, "acme", "command.submit:wallet*")
	for body, want := range map[string]int{
		`{"commands":[{"aggregateType":"wallet"},{"aggregateType":"wallets"}]}`:  http.StatusOK,
		`{"commands":[{"aggregateType":"wallet"},{"aggregateType":"transfer"}]}`: http.StatusForbidden,
		`{"commands":[{"aggregateType":"wallet"},{"aggregateId":"x"}]}`:          http.StatusForbidden,
		`{"commands":[]}`: http.StatusOK, // nothing that could be refused; the node validates it
	} {
		status, text := e.http(t, http.MethodPost, "/v1/commands:batch", body, "Authorization", wallets)
		if status == http.StatusBadRequest || status == http.StatusNotImplemented {
			status = http.StatusOK // it has reached the node, which knows no batches
		}
		if status != want {
			t.Errorf("%s: %d, want %d: %s", body, status, want, text)
		}
	}
}

func TestStanding_PlatformCallNeedsCredentialForAllTenants(t *testing.T) {
	t.Parallel()
	e := start(t, nil)
	for token, want := range map[string]int{
		e.token(t, "acme", "runner.admin"): http.StatusForbidden, e.token(t, "*", "query.read"): http.StatusForbidden,
		e.token(t, "*", "runner.admin"): http.StatusServiceUnavailable, // it was admitted, and this runner is absent
	} {
		if status, text := e.http(
			t, http.MethodPost, "/admin/runner/drain", "{}", "Authorization", token,
		); status != want {
			t.Errorf("status %d, want %d: %s", status, want, text)
		}
	}
}

func TestAudit_DenialsAndOperationsAreRecorded(t *testing.T) {
	e := start(t, nil)
	stream, err := e.js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		Decision, Reason, Principal, Procedure, Right, Code string
		CorrelationID                                       string `json:"correlation_id"`
	}
	next := func() (record, jetstream.Msg) {
		t.Helper()
		msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		var r record
		if err := json.Unmarshal(msg.Data(), &r); err != nil {
			t.Fatal(err)
		}
		return r, msg
	}
	// An answered query leaves no record: the first record is that of the denial.
	e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", e.token(t, "acme", "query.read"))
	e.query(t, "connect+json", &projectionv1.QueryRequest{View: "wallets", TenantId: "globex"}, "Authorization",
		e.token(t, "acme", "query.read"), "X-Correlation-Id", "spoof")
	denied, msg := next()
	if denied.Decision != "denied" || !strings.HasPrefix(denied.Reason, "TENANT_MISMATCH: ") ||
		denied.Principal != "app" || denied.Code != "permission_denied" ||
		denied.CorrelationID != "spoof" || !strings.HasSuffix(
		denied.Procedure, "/Query",
	) || msg.Headers().Get("x-correlation-id") != "spoof" {
		t.Errorf("audit record %s with %v", msg.Data(), msg.Headers())
	}

	e.http(t, http.MethodPost, "/admin/runner/drain", "{}", "Authorization", e.token(t, "*", "runner.admin"))
	operation, msg := next()
	if operation.Decision != "allowed" || operation.Right != "runner.admin" ||
		!strings.HasSuffix(operation.Procedure, "/Drain") ||
		operation.Code != "unavailable" || msg.Subject() != "audit._platform.operator" {
		t.Errorf("audit record %s on %s", msg.Data(), msg.Subject())
	}

	// The record has the operator's reason, whether or not the node answers; a denial has the
	// gateway's reason.
	const path, body = "/admin/runner/tenants/acme/workflows/transfer/t-1:cancel", `{"reason":"the customer has left"}`
	for _, tc := range []struct{ right, decision, reason, code, subject string }{
		{"runner.admin", "allowed", "the customer has left", "unavailable", "audit.acme.tenant"},
		{"query.read", "denied", "MISSING_RIGHT: ", "permission_denied", "audit.acme.denied"},
	} {
		e.http(t, http.MethodPost, path, body, "Authorization", e.token(t, "acme", tc.right))
		r, msg := next()
		if r.Decision != tc.decision || !strings.HasPrefix(r.Reason, tc.reason) ||
			tc.decision == "allowed" && r.Reason != tc.reason ||
			r.Code != tc.code || !strings.HasSuffix(r.Procedure, "/CancelWorkflow") || msg.Subject() != tc.subject {
			t.Errorf("%s: audit record %s on %s", tc.right, msg.Data(), msg.Subject())
		}
	}
}
