package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/gateway"
)

// fromPage sends a request like a page of an origin; "": without an origin.
func (e *edge) fromPage(t *testing.T, method, path, origin string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

func TestCORS_HeadersArePerOrigin(t *testing.T) {
	const app, shop, evil = "https://app.example.com", "http://shop.example.com:8080", "https://evil.example.com"
	e := start(t, func(c *gateway.Config) {
		c.Origins = []gateway.Origin{
			{Origin: app, Headers: []string{"X-App-Version"}, Exposed: []string{"X-Total"}},
			{Origin: shop},
		}
	})
	for _, tc := range []struct {
		origin, headers string
		allowed         bool
	}{
		{app, "authorization,last-event-id,x-app-version", true},
		{app, "authorization,x-shop-version", false},
		{app, "cookie", false},
		{shop, "authorization,idempotency-key,if-none-match,last-event-id", true},
		{shop, "x-app-version", false},
		{evil, "authorization", false},
		{strings.ToUpper(app), "authorization", false},
		{app + ".evil.example.com", "authorization", false},
		{"null", "authorization", false},
	} {
		res := e.fromPage(t, http.MethodOptions, "/v1/query/wallets", tc.origin, "Access-Control-Request-Method",
			"POST", "Access-Control-Request-Headers", tc.headers)
		origin, headers := res.Header.Get("Access-Control-Allow-Origin"), res.Header.Get("Access-Control-Allow-Headers")
		if tc.allowed != (origin == tc.origin && headers == tc.headers) || !tc.allowed && origin != "" {
			t.Errorf("%s may send %s: got %q, %q, want %v", tc.origin, tc.headers, origin, headers, tc.allowed)
		}
		if tc.allowed && res.Header.Get("Access-Control-Max-Age") != "600" {
			t.Errorf("%s: max age of the preflight is %q seconds", tc.origin, res.Header.Get("Access-Control-Max-Age"))
		}
		if !strings.Contains(res.Header.Get("Vary"), "Origin") ||
			res.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: preflight response %v", tc.origin, res.Header)
		}
	}
	for origin, exposed := range map[string]bool{app: true, shop: false, evil: false, "": false} {
		res := e.fromPage(t, http.MethodPost, "/v1/query/wallets", origin, "Authorization",
			e.token(t, "acme", "query.read"))
		if got := strings.Contains(res.Header.Get("Access-Control-Expose-Headers"), "X-Total"); got != exposed {
			t.Errorf("%s: exposed headers %q", origin, res.Header.Get("Access-Control-Expose-Headers"))
		}
		if allows := res.Header.Get("Access-Control-Allow-Origin"); (allows == origin) != (origin != evil) ||
			!slices.Contains(res.Header.Values("Vary"), "Origin") {
			t.Errorf("%s: %v", origin, res.Header)
		}
	}
}

// CORS headers of a node do not reach the browser, and the gateway's rules apply to every protocol,
// to errors and to streams.
func TestCORS_OnlyGatewaysRulesApply(t *testing.T) {
	const app = "https://app.example.com"
	m := &mirror{ticker: newTicker(t)}
	e := startWith(t, func(c *gateway.Config) { c.Origins = []gateway.Origin{{Origin: app}} }, m.register,
		m.ticker.set(t))
	node := http.Header{
		"Access-Control-Allow-Origin": {"*", "https://evil.example.com"}, "Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Expose-Headers": {"X-Secret"}, "Access-Control_allow_origin": {"*"},
		"Vary": {"Accept-Language"},
	}
	token := e.tokenOf(t, "app", mirrorRights...)
	for _, w := range everyWay() {
		for _, origin := range []string{app, "https://evil.example.com"} {
			m.set(node, nil)
			got := w.do(t, e, m, http.Header{"Authorization": {token}, "Origin": {origin}})
			if got.err != nil {
				t.Fatalf("%v: %v", w, got.err)
			}
			if w.protocol == "native grpc" {
				if origins := got.fields.Values("Access-Control-Allow-Origin"); len(origins) > 0 {
					t.Errorf("%v: the gRPC-only port answers CORS with %q", w, origins)
				}
				continue
			}
			want := []string{app}
			if origin != app {
				want = nil
			}
			if origins := got.fields.Values("Access-Control-Allow-Origin"); !slices.Equal(origins, want) ||
				got.fields.Get("Access-Control-Allow-Credentials") != "" ||
				strings.Contains(strings.Join(got.fields.Values("Access-Control-Expose-Headers"), ","), "X-Secret") {
				t.Errorf("%v from %s: %v", w, origin, got.fields)
			}
			if vary := strings.Join(got.fields.Values("Vary"), ","); !strings.Contains(vary, "Origin") {
				t.Errorf("%v from %s: Vary is %q", w, origin, vary)
			}
		}
	}
	for path, status := range map[string]int{
		"/v1/nothing": 404, "/v1/ticks/rooms/hall": 401, "/health": 200, "/openapi.json": 401, "//": 404,
	} {
		if res := e.fromPage(t, http.MethodGet, path, app); res.StatusCode != status ||
			res.Header.Get("Access-Control-Allow-Origin") != app {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
	}
}

func TestCheckOrigins_RejectsOriginsThatNoBrowserSends(t *testing.T) {
	for _, bad := range [][]gateway.Origin{
		{{Origin: ""}}, {{Origin: "*"}}, {{Origin: "null"}}, {{Origin: "app.example.com"}},
		{{Origin: "https://*.example.com"}}, {{Origin: "https://app.example.com/"}},
		{{Origin: "https://user@app.example.com"}}, {{Origin: "https://app.example.com?x"}}, {{Origin: "file://x"}},
		{{Origin: "https://App.example.com"}},
		{{Origin: "https://app.example.com:443"}}, {{Origin: "http://app.example.com:80"}},
		{{Origin: "https://app.example.com:"}}, {{Origin: "https://bücher.example"}},
		{{Origin: "https://a.example"}, {Origin: "https://a.example"}},
		{{Origin: "https://a.example", Headers: []string{"*"}}},
		{{Origin: "https://a.example", Exposed: []string{"X Total"}}},
		{{Origin: "https://a.example", Headers: []string{""}}},
		{{Origin: "https://a.example", Exposed: make([]string, 65)}}, make([]gateway.Origin, 1025),
	} {
		if gateway.CheckOrigins(bad...) == nil {
			t.Errorf("%.100v is valid, want an error", bad)
		}
	}
	if err := gateway.CheckOrigins(
		gateway.Origin{Origin: "https://a.example"}, gateway.Origin{Origin: "http://localhost:5173"},
		gateway.Origin{Origin: "https://xn--bcher-kva.example:8443"},
	); err != nil {
		t.Error(err)
	}
}

func TestHSTS_IsSentOverTLSOnly(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, func(c *gateway.Config) {
		c.HSTS = gateway.HSTS{MaxAge: 365 * 24 * time.Hour, IncludeSubdomains: true, Preload: true}
		c.Listen.Proxies = behind(t, "", "127.0.0.1")
		c.Origins = []gateway.Origin{{Origin: "https://app.example.com"}}
	}, ticks.register, ticks.set(t))
	for _, path := range []string{
		"/health", "/v1/nothing", "/v1/ticks/rooms/hall", "/gateway.v1.SessionService/WhoAmI", "/openapi.json",
	} {
		for proto, want := range map[string]string{
			"https": "max-age=31536000; includeSubDomains; preload", "http": "", "": "",
			"http, https": "max-age=31536000; includeSubDomains; preload", "ftp": "",
		} {
			res := e.fromPage(t, http.MethodGet, path, "", "X-Forwarded-Proto", proto, "Forwarded",
				"for=203.0.113.9;proto=https")
			if got := res.Header.Get("Strict-Transport-Security"); got != want {
				t.Errorf("%s over %q: got %q, want %q", path, proto, got, want)
			}
		}
	}
	untrusted := start(t, func(c *gateway.Config) { c.HSTS.MaxAge = time.Hour })
	if res := untrusted.fromPage(
		t, http.MethodGet, "/health", "", "X-Forwarded-Proto", "https",
	); res.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("client without TLS, forwarded as https: got %v", res.Header)
	}
}

func TestHSTS_InvalidPolicyIsRejected(t *testing.T) {
	for _, bad := range []gateway.HSTS{
		{MaxAge: -time.Second}, {MaxAge: time.Millisecond}, {IncludeSubdomains: true},
		{MaxAge: 365 * 24 * time.Hour, Preload: true},
		{MaxAge: time.Hour, IncludeSubdomains: true, Preload: true}, {Preload: true},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid, want an error", bad)
		}
	}
	for _, good := range []gateway.HSTS{{}, {MaxAge: time.Second}, {MaxAge: time.Hour, IncludeSubdomains: true}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}
