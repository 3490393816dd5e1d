package oidctest_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/oidctest"
)

const redirect = "http://127.0.0.1:1/callback"

// signIn runs the authorization code flow up to the code.
func signIn(t *testing.T, p *oidctest.Provider, verifier string, change func(url.Values)) url.Values {
	t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"client_id":             {"ui"},
		"redirect_uri":          {redirect},
		"response_type":         {"code"},
		"scope":                 {"openid offline_access"},
		"state":                 {"s"},
		"nonce":                 {"n"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"},
	}
	change(query)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/authorize?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	location, err := res.Location()
	if err != nil {
		return url.Values{"status": {res.Status}}
	}
	return location.Query()
}

// redeem sends a token request.
func redeem(t *testing.T, p *oidctest.Provider, form url.Values) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/token",
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestProvider_AuthorizationCodeWithPKCE(t *testing.T) {
	p := oidctest.Start(t, "/realms/acme", oidctest.Client{ID: "ui", RedirectURIs: []string{redirect}})
	verifier := rand.Text() + rand.Text()
	same := func(url.Values) {}
	if got := signIn(t, p, verifier, same); got.Get("error") != "access_denied" {
		t.Errorf("without a user: %v", got)
	}
	p.SignIn(map[string]any{"sub": "ada"}, map[string]any{"aud": "headgate"})
	for name, change := range map[string]func(url.Values){
		"a redirect that is not registered": func(q url.Values) { q.Set("redirect_uri", redirect+"/") },
		"no PKCE":                           func(q url.Values) { q.Del("code_challenge") },
		"plain PKCE":                        func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"no openid":                         func(q url.Values) { q.Set("scope", "profile") },
	} {
		if got := signIn(t, p, verifier, change); got.Get("code") != "" {
			t.Errorf("%s: %v", name, got)
		}
	}
	code := func() url.Values {
		got := signIn(t, p, verifier, same)
		if got.Get("state") != "s" || got.Get("iss") != p.URL {
			t.Errorf("the answer is %v", got)
		}
		return url.Values{
			"grant_type": {"authorization_code"}, "client_id": {"ui"}, "redirect_uri": {redirect}, "code": got["code"],
			"code_verifier": {verifier},
		}
	}
	wrong := code()
	wrong.Set("code_verifier", verifier+"x")
	if got := redeem(t, p, wrong); got["error"] != "invalid_grant" {
		t.Errorf("another verifier: %v", got)
	}
	form := code()
	tokens := redeem(t, p, form)
	if tokens["id_token"] == nil || tokens["access_token"] == nil || tokens["refresh_token"] == nil {
		t.Fatalf("%v", tokens)
	}
	if again := redeem(t, p, form); again["error"] != "invalid_grant" {
		t.Errorf("the code is valid twice: %v", again)
	}
	renew := func(token any) map[string]any {
		return redeem(t, p,
			url.Values{"grant_type": {"refresh_token"}, "client_id": {"ui"}, "refresh_token": {token.(string)}})
	}
	renewed := renew(tokens["refresh_token"])
	if renewed["refresh_token"] == nil || renewed["refresh_token"] == tokens["refresh_token"] {
		t.Fatalf("the refresh token is not rotated: %v", renewed)
	}
	if again := renew(tokens["refresh_token"]); again["error"] != "invalid_grant" {
		t.Errorf("a used refresh token: %v", again)
	}
	if after := renew(renewed["refresh_token"]); after["error"] != "invalid_grant" || p.Sessions() != 0 {
		t.Errorf("the session lives on after a reuse: %v", after)
	}
}

func TestProvider_RevocationEndsTheSessionOfItsClient(t *testing.T) {
	p := oidctest.Start(t, "/x", oidctest.Client{ID: "ui", RedirectURIs: []string{redirect}})
	p.SignIn(map[string]any{"sub": "ada"}, nil)
	verifier := rand.Text() + rand.Text()
	tokens := redeem(t, p, url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"ui"}, "redirect_uri": {redirect},
		"code": signIn(t, p, verifier, func(url.Values) {})["code"], "code_verifier": {verifier},
	})
	revoke := func(client string) {
		form := url.Values{"client_id": {client}, "token": {tokens["refresh_token"].(string)}}
		res, err := http.PostForm(p.URL+"/revoke", form)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("a revocation: %s", res.Status)
		}
	}
	if revoke("another"); p.Sessions() != 1 {
		t.Error("another client ended the session")
	}
	if revoke("ui"); p.Sessions() != 0 {
		t.Error("the session has not ended")
	}
}
