package main_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// issue runs `headgate token` and returns the token.
func issue(t *testing.T, data string, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary, append([]string{"token", "--data", data}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// unsigned returns the token with the algorithm none and no signature.
func unsigned(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
}

func TestRefusals_BadInputGetsAClearErrorAndLosesNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	p := start(t, data, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	acme := "Bearer " + p.tokens["ACME"]
	post := func(path, body string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		status, text, err := do(req, header...)
		if err != nil {
			t.Fatal(err)
		}
		return status, text
	}
	if status, text := post(
		"/v1/commands/wallet/ada/open", `{"payload":{"owner":"Ada"}}`, "Authorization", acme,
	); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}

	const (
		submit = "/aggregate.gateway.v1.CommandService/Submit"
		query  = "/projection.gateway.v1.QueryService/Query"
		rest   = "/v1/commands/wallet/ada/deposit"
		whole  = `{"aggregateType":"wallet","aggregateId":"ada","command":"deposit","payload":{"amount":1}}`
	)
	long := strings.Repeat("a", 200)
	cases := []struct {
		name, path, body string
		header           []string // beside the authorization
		status           int
		code, message    string
	}{
		{
			"malformed JSON", submit, `{"command":`, nil, 400, "invalid_argument",
			"unexpected end of the text, expected a string",
		},
		{"malformed JSON over REST", rest, `{"payload":{`, nil, 400, "invalid_argument", "JSON line 1 column 13"},
		{"unknown field", submit, `{"amount":1}`, nil, 400, "invalid_argument", "amount: it is not a field of"},
		{"wrong type", submit, `{"payload":[1]}`, nil, 400, "invalid_argument", "[1] is not an object"},
		{
			"wrong type of version", rest, `{"expectedVersion":1.5}`, nil, 400, "invalid_argument",
			"expectedVersion: 1.5 is not a 64-bit integer",
		},
		{
			"violated API rule", submit, `{"aggregateType":"wallet","aggregateId":"a.b","command":"deposit"}`, nil,
			400, "invalid_argument", "aggregate_id",
		},
		{
			"payload that violates the schema", rest, `{"payload":{"amount":"1"}}`, nil, 400, "invalid_argument",
			"payload.amount: got string, want integer",
		},
		{
			"tenant a.b", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", "a.b"}, 400, "invalid_argument",
			`invalid tenant id: \".\" is not allowed at position 2`,
		},
		{
			"tenant *", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", "*"}, 400, "invalid_argument",
			"invalid tenant id",
		},
		{
			"tenant >", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", ">"}, 400, "invalid_argument",
			"invalid tenant id",
		},
		{
			"tenant of 200 characters", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", long}, 400,
			"invalid_argument", "it has 200 characters",
		},
		{
			"tenant in upper case", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", "ACME"}, 400,
			"invalid_argument", "invalid tenant id",
		},
		{
			"duplicate tenant", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", "acme", "X-Tenant-Id", "acme"},
			400, "invalid_argument", "the tenant is given more than once",
		},
		{"tenant a.b in the body", submit, `{"tenantId":"a.b"}`, nil, 400, "invalid_argument", "invalid tenant id"},
		{
			"foreign tenant in the header", rest, `{"payload":{"amount":1}}`, []string{"X-Tenant-Id", "globex"}, 403,
			"permission_denied", "the credential is not for this tenant",
		},
		{
			"foreign tenant in the body", submit, `{"tenantId":"globex"}`, nil, 403, "permission_denied",
			"the credential is not for this tenant",
		},
		{
			"foreign tenant in the body, own tenant in the header", submit, `{"tenantId":"globex"}`,
			[]string{"X-Tenant-Id", "acme"}, 403, "permission_denied", "name different tenants",
		},
		{
			"unknown aggregate", "/v1/commands/purse/ada/open", `{}`, nil, 404, "not_found",
			`the model has no aggregate \"purse\"`,
		},
		{"unknown command", "/v1/commands/wallet/ada/burn", `{}`, nil, 404, "not_found", `has no command \"burn\"`},
		{"unknown view", "/v1/query/purses", `{}`, nil, 404, "not_found", `the model has no view \"purses\"`},
		{
			"unknown method", "/aggregate.gateway.v1.CommandService/Delete", `{}`, nil, 501, "unimplemented",
			"is not served",
		},
		{"unknown path", "/v1/nothing", `{}`, nil, 404, "not_found", "nothing is served at /v1/nothing"},
		{
			"malformed filter", "/v1/query/wallets", `{"query":{"filter":"balance >"}}`, nil, 400,
			"invalid_argument", "the filter cannot be used",
		},
		{
			"filter on an unknown column", query, `{"view":"wallets","query":{"filter":"color = \"red\""}}`, nil, 400,
			"invalid_argument", "the columns wallet_id, owner",
		},
		{
			"order by an unknown column", query, `{"view":"wallets","query":{"orderBy":"color"}}`, nil, 400,
			"invalid_argument", `has no column \"color\"`,
		},
		{
			"forged page token", query, `{"view":"wallets","query":{"pageToken":"AAAA"}}`, nil, 400,
			"invalid_argument", "the page token cannot be used",
		},
		{
			"forged position", query, `{"view":"wallets","minPosition":"AAAA"}`, nil, 400, "invalid_argument",
			"not one that this platform gave",
		},
		{
			"oversized body", submit, `{"payload":{"x":"` + strings.Repeat("x", 2<<20) + `"}}`, nil, 429,
			"resource_exhausted", "",
		},
		{
			"oversized body over REST", rest, `{"payload":{"x":"` + strings.Repeat("x", 2<<20) + `"}}`, nil, 413,
			"resource_exhausted", "the body is larger than 1048576 bytes",
		},
		{"no right", "/admin/runner/drain", `{}`, nil, 403, "permission_denied", `needs the right \"runner.admin\"`},
		{
			"timeout of 1 ms", rest, `{"payload":{"amount":1}}`, []string{"Connect-Timeout-Ms", "1"}, 504, "deadline_exceeded",
			"",
		},
		{
			"malformed timeout", rest, `{"payload":{"amount":1}}`, []string{"Connect-Timeout-Ms", "soon"}, 400,
			"invalid_argument", "send milliseconds",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			status, text := post(tc.path, tc.body, append([]string{"Authorization", acme}, tc.header...)...)
			checkRefusal(t, status, text, tc.status, tc.code, tc.message)
		})
	}

	expired := issue(t, data, "--tenant", "acme", "--right", "command.submit", "--ttl=-2m")
	reader := issue(t, data, "--tenant", "acme", "--right", "query.read:wallets")
	elsewhere := issue(t, t.TempDir(), "--tenant", "acme", "--right", "command.submit")
	credentials := []struct {
		name, path, body string
		authorization    []string
		status           int
		code, message    string
	}{
		{"none", submit, whole, nil, 401, "unauthenticated", "no credential"},
		{"not a bearer token", submit, whole, []string{"Basic YTpi"}, 401, "unauthenticated", "no credential"},
		{"expired", submit, whole, []string{"Bearer " + expired}, 401, "unauthenticated", "the token has expired"},
		{
			"algorithm none", submit, whole, []string{"Bearer " + unsigned(t, p.tokens["ACME"])}, 401,
			"unauthenticated", "the token is invalid",
		},
		{
			"signed with a foreign key", submit, whole, []string{"Bearer " + elsewhere}, 401, "unauthenticated",
			"the token is invalid",
		},
		{"truncated", submit, whole, []string{acme[:len(acme)-4]}, 401, "unauthenticated", "the token is invalid"},
		{"twice", submit, whole, []string{acme, acme}, 401, "unauthenticated", "given more than once"},
		{
			"missing right", rest, `{"payload":{"amount":1}}`, []string{"Bearer " + reader}, 403,
			"permission_denied", `needs the right \"command.submit\"`,
		},
		{
			"right for another view", "/v1/query/movements", `{}`, []string{"Bearer " + reader}, 403,
			"permission_denied", `query.read:movements`,
		},
	}
	for _, tc := range credentials {
		t.Run("credential "+tc.name, func(t *testing.T) {
			var header []string
			for _, value := range tc.authorization {
				header = append(header, "Authorization", value)
			}
			status, text := post(tc.path, tc.body, header...)
			checkRefusal(t, status, text, tc.status, tc.code, tc.message)
		})
	}

	t.Run("internal commands are for workflows only", func(t *testing.T) {
		transfers, operator := "Bearer "+p.tokens["ACME_TRANSFERS"], "Bearer "+p.tokens["OPERATOR"]
		everything := "Bearer " +
			issue(t, data, "--subject", "runner", "--tenant", "acme", "--right", "command.submit", "--right",
				"command.submit:*", "--right", "command.submit:transfer.complete")
		if status, text := post(
			"/v1/commands/transfer/t1/request", `{"payload":{"from":"ada","to":"missing","amount":1}}`, "Authorization",
			transfers,
		); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		for _, authorization := range []string{acme, operator, everything} {
			for path, body := range map[string]string{
				"/v1/commands/transfer/t1/complete": `{}`,
				"/v1/commands/transfer/t1/fail":     `{"payload":{"reason":"x"},"dryRun":true}`,
				"/v1/commands":                      `{"aggregateType":"transfer","aggregateId":"t1","command":"complete","idempotencyKey":"k"}`,
				submit:                              `{"aggregateType":"transfer","aggregateId":"t1","command":"complete"}`,
				"/v1/commands:batch":                `{"commands":[{"aggregateType":"transfer","aggregateId":"t1","command":"complete"}]}`,
			} {
				status, text := post(path, body, "Authorization", authorization, "X-Tenant-Id", "acme",
					"X-Headgate-Rights", "command.internal", "X-Headgate-Platform", "1")
				checkRefusal(t, status, text, http.StatusForbidden, "permission_denied", "is internal")
			}
		}
		status, text := post("/v1/commands/wallet/ada/deposit", `{"payload":{"amount":1}}`, "Authorization", transfers)
		checkRefusal(t, status, text, http.StatusForbidden, "permission_denied", "command.submit:wallet.deposit")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.aggregate+submit,
			strings.NewReader(`{"aggregateType":"transfer","aggregateId":"t1","command":"complete"}`))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err = do(req, "Content-Type", "application/json", "X-Tenant-Id", "acme") // without the gateway
		if err != nil {
			t.Fatal(err)
		}
		checkRefusal(t, status, text, http.StatusForbidden, "permission_denied", "is internal")
		// The runner's own credential has the right: the workflow fails the transfer.
		if err := eventually(ctx, "the transfer fails", func() (bool, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.gateway+"/v1/aggregates/transfer/t1", nil)
			if err != nil {
				return false, err
			}
			_, text, err := do(req, "Authorization", acme)
			return strings.Contains(text, `"failed"`), err
		}); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(
			binary, "token", "--data", data, "--tenant", "acme", "--right", "command.submit:transfer.",
		).CombinedOutput(); err == nil || !strings.Contains(string(out), "AGGREGATE.COMMAND") {
			t.Errorf("a malformed right was issued: %s", out)
		}
		warned := issue(t, data, "--tenant", "acme", "--right", "command.submit:transfer.complete", "--right",
			"command.internal:transfer.complete", "--right", "query.read:wal*", "--model", "../../model/wallet.yaml")
		if !strings.Contains(warned, `"command.submit:transfer.complete" matches nothing`) ||
			strings.Contains(warned, `"command.internal`) || strings.Contains(warned, `"query.read`) {
			t.Errorf("warnings %q", warned)
		}
	})

	t.Run("a bad traceparent starts a new trace", func(t *testing.T) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.gateway+"/v1/query/wallets/ada", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", acme)
		req.Header.Set("Traceparent", "00-00000000000000000000000000000000-0000000000000000-00")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if _, ok := contextkit.ParseTraceID(res.Header.Get("Trace-Id")); !ok || res.StatusCode != http.StatusOK {
			t.Fatalf("status %d, trace %q", res.StatusCode, res.Header.Get("Trace-Id"))
		}
	})
	t.Run("another tenant is rejected over gRPC", func(t *testing.T) {
		_, grpc := dial(t, p.gateway, p.tokens["ACME"])
		asGlobex := contextkit.TenantContext(ctx, parseTenant(t, "globex"))
		_, err := grpc.queries.Query(asGlobex, &projectionv1.QueryRequest{View: "wallets"})
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("tenant in the metadata: %v", err)
		}
		asAcme := contextkit.TenantContext(ctx, parseTenant(t, "acme"))
		_, err = grpc.queries.Query(asAcme, &projectionv1.QueryRequest{TenantId: "globex", View: "wallets"})
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("tenant in the message: %v", err)
		}
	})
	t.Run("no data is lost", func(t *testing.T) {
		status, text, err := get(ctx, p.gateway+"/v1/aggregates/wallet/ada", "Authorization", acme)
		if err != nil || status != http.StatusOK || !strings.Contains(text, `"version":"1"`) ||
			!strings.Contains(text, `"balance":0`) {
			t.Fatalf("%d %s %v, want the unchanged wallet", status, text, err)
		}
	})
	p.stop(t)
}

// checkRefusal compares an answer with Connect's JSON error.
func checkRefusal(t *testing.T, status int, text string, wantStatus int, wantCode, wantMessage string) {
	t.Helper()
	var refusal struct{ Code, Message string }
	if err := json.Unmarshal([]byte(text), &refusal); err != nil {
		t.Fatalf("status %d, not a JSON error: %s", status, text)
	}
	if status != wantStatus || refusal.Code != wantCode || !strings.Contains(text, wantMessage) {
		t.Fatalf("%d %s\nwant %d %s %q", status, text, wantStatus, wantCode, wantMessage)
	}
	if strings.Contains(text, "127.0.0.1") || strings.Contains(text, ".go:") {
		t.Fatalf("internal details leak: %s", text)
	}
}

func TestModel_BrokenOneIsRejectedAtStartAndReload(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	document, err := exec.Command(binary, "model", "show").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	broken := strings.Replace(string(document), "state.balance >= cmd.amount", "state.balance >= cmd.", 1)

	write(broken)
	out, err := exec.Command(binary, "dev", "--data", data, "--model", path, "--listen", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), path+":") ||
		!strings.Contains(string(out), "aggregates.wallet.commands.withdraw.require[1].that") {
		t.Fatalf("at start: %v\n%s", err, out)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 0 {
		t.Fatalf("a rejected start left %v in the data directory", entries)
	}
	if out, err := exec.Command(binary, "model", "check", path).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "require[1].that") {
		t.Fatalf("model check: %v\n%s", err, out)
	}

	write(string(document))
	p := start(t, data, nil, "--model", path)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reload := func() (int, string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+"/admin/runner/reload",
			strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := do(req, "Authorization", "Bearer "+p.tokens["OPERATOR"], "Content-Type",
			"application/json")
		if err != nil {
			t.Fatal(err)
		}
		return status, text
	}
	_, before := reload()
	write(broken)
	status, text := reload()
	checkRefusal(t, status, text, 400, "failed_precondition", "the model has errors and the current one stays in use")
	write(string(document))
	if status, after := reload(); status != http.StatusOK || after != before {
		t.Fatalf("after the mistake: %d %s\nbefore: %s", status, after, before)
	}
	write(string(document) + "\n# a remark\n")
	if status, after := reload(); status != http.StatusOK || !strings.Contains(after, `"changed":true`) {
		t.Fatalf("other document: %d %s", status, after)
	}
	p.stop(t)
}

func TestDev_SecondStartFindsDataAndTokens(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := start(t, data, nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, first.gateway+"/v1/commands/wallet/ada/open",
		strings.NewReader(`{"payload":{"owner":"Ada"}}`))
	if err != nil {
		t.Fatal(err)
	}
	acme := "Bearer " + first.tokens["ACME"]
	status, opened, err := do(req, "Authorization", acme, "Content-Type", "application/json")
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, opened, err)
	}
	if out, err := exec.Command(
		binary, "dev", "--data", data, "--listen", "127.0.0.1:0", "--aggregate-listen", "127.0.0.1:0",
		"--projection-listen", "127.0.0.1:0", "--runner-listen", "127.0.0.1:0",
	).CombinedOutput(); err == nil || !strings.Contains(string(out), "is used by another process") {
		t.Fatalf("two processes over one directory: %v\n%s", err, out)
	}
	first.stop(t)

	second := start(t, data, nil)
	var answer struct{ Position string }
	if err := json.Unmarshal([]byte(opened), &answer); err != nil {
		t.Fatal(err)
	}
	status, text, err := get(ctx, second.gateway+"/v1/query/wallets/ada?min_position="+answer.Position, "Authorization",
		acme)
	if err != nil || status != http.StatusOK || !strings.Contains(text, `"owner":"Ada"`) {
		t.Fatalf("%d %s %v", status, text, err)
	}
	second.stop(t)
}
