package ui_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/control/ui"
)

func TestHandler_ServesPagesAndAssetsUnderAStrictPolicy(t *testing.T) {
	server := httptest.NewServer(ui.Handler())
	defer server.Close()
	get := func(path string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	_, page := get("/ui/")
	assets := regexp.MustCompile(`/ui/assets/[^"]+`).FindAllString(page, -1)
	if len(assets) < 2 {
		t.Fatalf("the page loads %v: it has not been built", assets)
	}
	for _, asset := range assets {
		if res, _ := get(asset); res.StatusCode != http.StatusOK ||
			!strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %v", asset, res)
		}
	}
	for _, path := range []string{"/ui/fleet", "/ui/timeline?id=x"} {
		res, body := get(path)
		if res.StatusCode != http.StatusOK || body != page {
			t.Errorf("%s is not the application's page: %d", path, res.StatusCode)
		}
		if policy := res.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "script-src 'self'") ||
			strings.Contains(policy, "unsafe-eval") {
			t.Errorf("%s has the policy %q", path, policy)
		}
	}
	if res, _ := get("/ui/%2e%2e/%2e%2e/etc/passwd"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a path that leads out: %d", res.StatusCode)
	}
	if res, _ := get("/ui/assets/none.js"); res.StatusCode != http.StatusNotFound {
		t.Errorf("an asset that is not there: %d", res.StatusCode)
	}
}

func TestHandler_AllowsIssuersOriginsOnly(t *testing.T) {
	corp := ui.SignIn{
		Name:     "corp",
		Issuer:   "https://login.example.com/realms/corp",
		ClientID: "console",
		Scopes:   []string{"openid"},
	}
	other := corp
	other.Name, other.Issuer = "", "https://login.example.com/realms/other"
	elsewhere := corp
	elsewhere.Elsewhere = func() []string {
		return []string{"https://tokens.example.com", "https://x; script-src *", "*", "https://login.example.com"}
	}
	for name, test := range map[string]struct {
		signIns       []ui.SignIn
		connect, body string
	}{
		"none": {nil, "connect-src 'self';", "[]"},
		"two of one origin": {
			[]ui.SignIn{corp, other}, "connect-src 'self' https://login.example.com;",
			`[{"name":"corp","issuer":"https://login.example.com/realms/corp","clientId":"console","scopes":["openid"]},` +
				`{"name":"","issuer":"https://login.example.com/realms/other","clientId":"console","scopes":["openid"]}]`,
		},
		"endpoints elsewhere": {
			[]ui.SignIn{elsewhere}, "connect-src 'self' https://login.example.com https://tokens.example.com;",
			`[{"name":"corp","issuer":"https://login.example.com/realms/corp","clientId":"console","scopes":["openid"],` +
				`"origins":["https://tokens.example.com","https://login.example.com"]}]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer := httptest.NewRecorder()
			ui.Handler(test.signIns...).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/ui/sign-in.json", nil))
			if policy := answer.Header().Get("Content-Security-Policy"); !strings.Contains(policy, test.connect) {
				t.Errorf("policy %q, want %q", policy, test.connect)
			}
			if got := strings.TrimSpace(answer.Body.String()); got != test.body ||
				answer.Header().Get("Content-Type") != "application/json" {
				t.Errorf("answer %q %v", got, answer.Header())
			}
		})
	}
}

func TestSignIn_CheckRefusesWhatWouldChangeThePolicy(t *testing.T) {
	for issuer, valid := range map[string]bool{
		"https://login.example.com":          true,
		"http://127.0.0.1:8080/realms/a;b":   true, // a path is not in the policy
		"http://[::1]:8080":                  true,
		"https://a;script-src":               false,
		"https://a,b":                        false,
		"https://'unsafe-inline'":            false,
		"https://*":                          false,
		"https://user@login.example.com":     true, // the user is not in the policy
		"data:text/plain,x":                  false,
		"javascript:alert(1)":                false,
		"ftp://login.example.com":            false,
		"https://":                           false,
		"login.example.com":                  false,
		"https://a b":                        false,
		"https://login.example.com\n; x 'y'": false,
	} {
		if err := (ui.SignIn{Issuer: issuer, Scopes: []string{"openid"}}).Check(); (err == nil) != valid {
			t.Errorf("%q: %v", issuer, err)
		}
	}
	for _, scopes := range [][]string{nil, {"email"}, {"openid", "a b"}, {"openid", ""}, {"openid", `a"b`}} {
		if err := (ui.SignIn{Issuer: "https://login.example.com", Scopes: scopes}).Check(); err == nil {
			t.Errorf("scopes %q are accepted", scopes)
		}
	}
}
