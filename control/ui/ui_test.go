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
