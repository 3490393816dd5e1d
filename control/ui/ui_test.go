package ui_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"

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

func TestHandler_CompressesTextAsTheClientAccepts(t *testing.T) {
	handler := ui.Handler()
	get := func(path string, encodings ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.Header["Accept-Encoding"] = encodings
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		return answer
	}
	script := regexp.MustCompile(`/ui/assets/main-[^"]+\.js`).FindString(get("/ui/").Body.String())
	plain := get(script).Body.Bytes()
	if len(plain) < 100_000 {
		t.Fatalf("the script %q has %d bytes", script, len(plain))
	}
	read := map[string]func(io.Reader) (io.Reader, error){
		"":     func(r io.Reader) (io.Reader, error) { return r, nil },
		"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	}
	for _, test := range []struct {
		accepts []string
		want    string
	}{
		{[]string{"gzip, deflate, br, zstd"}, "br"},
		{[]string{"gzip", "BR;q=0.5"}, "br"},
		{[]string{"br;q=0, gzip;q=1.0"}, "gzip"},
		{[]string{"br;q=x, gzip; q=0.0"}, ""},
		{[]string{"identity"}, ""},
		{nil, ""},
	} {
		answer := get(script, test.accepts...)
		if got := answer.Header().Get("Content-Encoding"); got != test.want ||
			answer.Header().Get("Vary") != "Accept-Encoding" ||
			!strings.HasPrefix(answer.Header().Get("Content-Type"), "text/javascript") {
			t.Errorf("%q: %v", test.accepts, answer.Header())
			continue
		}
		if size := answer.Body.Len(); test.want != "" && size > len(plain)/2 {
			t.Errorf("%q: %d of %d bytes", test.accepts, size, len(plain))
		}
		body, err := read[test.want](answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q: another file, %v", test.accepts, err)
		}
	}
	font := regexp.MustCompile(`/ui/assets/inter-latin-wght-[^")]+\.woff2`)
	style := regexp.MustCompile(`/ui/assets/[^"]+\.css`).FindString(get("/ui/").Body.String())
	name := font.FindString(get(style).Body.String())
	if answer := get(name, "br"); answer.Code != http.StatusOK || answer.Header().Get("Content-Encoding") != "" ||
		answer.Header().Get("Content-Type") != "font/woff2" {
		t.Errorf("the font %q: %d %v", name, answer.Code, answer.Header())
	}
}

func TestHandler_HeadHasTheHeadersOfGet(t *testing.T) {
	server := httptest.NewServer(ui.Handler())
	defer server.Close()
	for _, path := range []string{"/ui/", "/ui/favicon.svg"} {
		var sizes [2]int64
		for i, method := range []string{http.MethodGet, http.MethodHead} {
			req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", "br")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err := errors.Join(err, res.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if method == http.MethodHead && len(body) > 0 {
				t.Errorf("HEAD %s has a body", path)
			}
			sizes[i] = res.ContentLength
		}
		if sizes[0] <= 0 || sizes[0] != sizes[1] {
			t.Errorf("%s: GET announces %d bytes, HEAD %d", path, sizes[0], sizes[1])
		}
	}
}

func TestHandler_MissingAssetsAreNotCached(t *testing.T) {
	answer := httptest.NewRecorder()
	ui.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/ui/assets/none.js", nil))
	if control := answer.Header().Get("Cache-Control"); answer.Code != http.StatusNotFound || control != "no-cache" {
		t.Errorf("%d, %q", answer.Code, control)
	}
}
