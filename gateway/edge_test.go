package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/compression"
)

func TestREST_SupportsEveryEncoding(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	e.node.set(nil)
	for _, c := range compression.All() {
		var packed strings.Builder
		w, err := c.Compress(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, `{"metadata":{"k":"`+strings.Repeat("v", 200)+`"}}`); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		send := func(body, encoding string) (int, string) {
			return e.http(
				t, http.MethodPost, "/v1/query/wallets", body, "Authorization", token, "Content-Type",
				"application/json",
				"Content-Encoding", encoding, "Accept-Encoding", c.Name()+";q=0.5, unknown",
			)
		}
		if status, text := send(packed.String(), c.Name()); status != http.StatusOK {
			t.Fatalf("%s: status %d: %s", c.Name(), status, text)
		}
		if _, _, _, _, query := e.node.seen(); len(query.GetMetadata()["k"]) != 200 {
			t.Errorf("%s: the node received %v", c.Name(), query)
		}
		if status, text := send("not compressed", c.Name()); status != http.StatusBadRequest {
			t.Errorf("%s: uncompressed body: status %d: %s", c.Name(), status, text)
		}
		if status, text := send("{}", "rot13"); status != http.StatusUnsupportedMediaType ||
			!strings.Contains(text, "supported: gzip, zstd, br") {
			t.Errorf("unknown encoding: status %d: %s", status, text)
		}
	}
	t.Run("decompression bomb is rejected", func(t *testing.T) {
		var bomb strings.Builder
		c := compression.All()[0]
		w, err := c.Compress(&bomb)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, `{"metadata":{"k":"`+strings.Repeat("v", 8<<20)+`"}}`)
		_ = w.Close()
		status, text := e.http(t, http.MethodPost, "/v1/query/wallets", bomb.String(), "Authorization", token,
			"Content-Encoding", c.Name())
		if status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes that decompress to 8 MiB: status %d: %s", bomb.Len(), status, text)
		}
	})
}

func TestCORS_OnlyListedOriginsAreAllowed(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Origins = []gateway.Origin{{Origin: "https://app.example.com"}} })
	preflight := func(origin, method, headers string) http.Header {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions,
			e.url+"/projection.gateway.v1.QueryService/Query", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		if method != "" { // else it is an OPTIONS request of the page itself
			req.Header.Set("Access-Control-Request-Method", method)
			req.Header.Set("Access-Control-Request-Headers", headers)
		}
		res, err := e.plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.Header
	}
	if header := preflight(
		"https://app.example.com", "POST",
		"authorization,connect-protocol-version,content-type,last-event-id,x-tenant-id",
	); header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("response to the allowed origin: %v", header)
	}
	if header := preflight(
		"https://app.example.com", "HEAD", "authorization,idempotency-key,if-none-match",
	); header.Get("Access-Control-Allow-Methods") != "HEAD" || header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("response to HEAD with REST headers: %v", header)
	}
	if exposed := preflight(
		"https://app.example.com", "", "",
	).Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Etag") ||
		!strings.Contains(exposed, "Retry-After") {
		t.Errorf("exposed headers %q", exposed)
	}
	if header := preflight(
		"https://evil.example.com", "POST", "content-type",
	); header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("response to another origin: %v", header)
	}
	for _, bad := range []string{
		"*", "app.example.com", "https://*.example.com", "https://app.example.com/", "file://x",
	} {
		catalog, err := policy.NewCatalog()
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := e.issuer.Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gateway.New(
			gateway.Config{Auth: accepted, Origins: []gateway.Origin{{Origin: bad}}}, catalog, route.NewTable(), e.js,
			zerolog.Nop(),
		); err == nil {
			t.Errorf("origin %q is valid, want an error", bad)
		}
	}
}

func TestExplain_NeedsRight(t *testing.T) {
	e := start(t, nil)
	asker, other := e.token(t, "acme", "query.read", "gateway.explain"), e.token(t, "acme", "query.read")
	explained := func(token, tenant string) (record struct {
		Decision, Reason, Node, Code string
		Attempts                     int
		Routing                      uint64 `json:"routing_revision"`
	}, given bool) {
		got := e.query(t, "connect+json", &projectionv1.QueryRequest{View: "wallets", TenantId: tenant},
			"Authorization", token, "X-Headgate-Explain", "1")
		text := got.header("X-Headgate-Decision")
		if text != "" {
			if err := json.Unmarshal([]byte(text), &record); err != nil {
				t.Fatal(err)
			}
		}
		return record, text != ""
	}
	if _, given := explained(other, ""); given {
		t.Error("Explain answers a principal without the right")
	}
	if r, _ := explained(asker, ""); r.Decision != "allowed" || r.Node != "p" || r.Attempts != 1 || r.Routing != 1 ||
		r.Code != "ok" {
		t.Errorf("successful call: %+v", r)
	}
	if r, _ := explained(asker, "globex"); r.Decision != "denied" ||
		!strings.HasPrefix(r.Reason, "TENANT_MISMATCH: ") || r.Node != "" {
		t.Errorf("denied call: %+v", r)
	}
}

func TestOpenAPI_NeedsCredential(t *testing.T) {
	e := start(t, nil)
	for token, want := range map[string]int{"": http.StatusUnauthorized, e.token(t, "acme"): http.StatusOK} {
		status, text := e.http(t, http.MethodGet, "/openapi.json", "", "Authorization", token)
		if status != want || (want == http.StatusOK) != strings.Contains(text, `"/v1/query/{view}"`) {
			t.Errorf("status %d, want %d: %.200s", status, want, text)
		}
	}
}

func TestReflection_NeedsCredential(t *testing.T) {
	e := start(t, nil)
	list := func(token string) (string, error) {
		ctx, info := connect.NewClientContext(t.Context())
		if token != "" {
			info.RequestHeader().Set("Authorization", token)
		}
		stream := grpcreflect.NewClient(e.client("grpc")).NewStream(ctx)
		defer stream.Close()
		names, err := stream.ListServices()
		return fmt.Sprint(names), err
	}
	if names, err := list(""); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("no credential: %s, %v", names, err)
	}
	names, err := list(e.token(t, "acme"))
	if err != nil || !strings.Contains(names, "projection.gateway.v1.QueryService") ||
		strings.Contains(names, "grpc.") {
		t.Errorf("%s, %v", names, err)
	}
}
