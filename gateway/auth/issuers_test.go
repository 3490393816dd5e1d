package auth_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/oidctest"
)

// discover returns a ring with the keys that the provider's discovery names.
func discover(t testing.TB, discovery auth.Discovery) (*auth.KeyRing, error) {
	t.Helper()
	ring, err := auth.NewKeyRing(t.Context(), auth.KeyRingConfig{Source: discovery.Source(), Foreign: true})
	if err != nil {
		t.Fatal(err)
	}
	return ring, ring.Refresh(t.Context())
}

// of returns the configuration of an issuer.
func of(t testing.TB, name string, p *oidctest.Provider) auth.IssuerConfig {
	t.Helper()
	ring, err := discover(t, auth.Discovery{Issuer: p.URL})
	if err != nil {
		t.Fatal(err)
	}
	return auth.IssuerConfig{
		Issuer:    p.URL,
		Name:      name,
		Audiences: []string{"audience", "other"},
		Keys:      ring,
	}
}

// claimsOf returns the claims of a valid token with changes.
func claimsOf(changes map[string]any) map[string]any {
	claims := map[string]any{
		"aud": "audience", "sub": "ada", "tenants": []string{"acme"}, "rights": []string{"query.read"},
	}
	for name, value := range changes {
		claims[name] = value
	}
	return claims
}

func bearer(token string) []string { return []string{"Bearer " + token} }

func newVerifier(t testing.TB, issuers ...auth.IssuerConfig) *auth.Verifier {
	t.Helper()
	verifier, err := auth.NewVerifier(auth.Config{Issuers: issuers})
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

func TestIssuers_KeysOfOneVerifyNoTokensOfAnother(t *testing.T) {
	first, second := oidctest.Start(t, "/"), oidctest.Start(t, "/realms/corp")
	verifier := newVerifier(t, of(t, "", first), of(t, "corp", second))
	for _, tc := range []struct {
		name    string
		by      *oidctest.Provider
		changes map[string]any
		subject string // "": refused
		cause   string
	}{
		{"the first issuer", first, nil, "ada", ""},
		{"second issuer", second, nil, "corp:ada", ""},
		{"other audience of the issuer", second, map[string]any{"aud": []string{"x", "other"}}, "corp:ada", ""},
		{
			"token of the second issuer under the first's name", second, map[string]any{"iss": first.URL}, "",
			"unknown key",
		},
		{
			"token of the first issuer under the second's name", first, map[string]any{"iss": second.URL}, "",
			"unknown key",
		},
		{"unknown issuer", first, map[string]any{"iss": "https://evil.example"}, "", "wrong issuer"},
		{
			"without the trailing slash", first, map[string]any{"iss": strings.TrimSuffix(first.URL, "/")}, "",
			"wrong issuer",
		},
		{"issuer with a trailing slash", second, map[string]any{"iss": second.URL + "/"}, "", "wrong issuer"},
		{"issuer in other letter case", second, map[string]any{"iss": strings.ToUpper(second.URL)}, "", "wrong issuer"},
		{"two issuers", second, map[string]any{"iss": []string{second.URL, first.URL}}, "", "iss is not a string"},
		{"subject prefixed like the second issuer's", first, map[string]any{"sub": "corp:ada"}, "token:corp:ada", ""},
		{"in wide letters", first, map[string]any{"sub": "\uff23orp:ada"}, "token:\uff23orp:ada", ""},
		{"subject with a separator", first, map[string]any{"sub": "c\u200borp:ada"}, "token:c\u200borp:ada", ""},
		{"subject like an API key", second, map[string]any{"sub": "key:ada"}, "corp:key:ada", ""},
		{"subject in another script", second, map[string]any{"sub": "Ада \u202e"}, "corp:Ада \u202e", ""},
		{"invisible subject", second, map[string]any{"sub": "\u200b"}, "", "sub is missing"},
		{"no lifetime", second, map[string]any{"exp": nil}, "", "exp is missing"},
	} {
		p, err := verifier.Authenticate(t.Context(), time.Now(), bearer(tc.by.Token(claimsOf(tc.changes))))
		switch {
		case tc.subject == "":
			if !errors.Is(err, auth.ErrBadToken) || !strings.Contains(err.Error(), tc.cause) {
				t.Errorf("%s: %v, %v; want an error with %q", tc.name, p, err, tc.cause)
			}
		case err != nil || p.Subject != tc.subject:
			t.Errorf("%s: %v, %v; want %q", tc.name, p, err, tc.subject)
		}
	}
}

// A delegate, such as a ticket's, names its issuer: the kid of one issuer is no key of another.
func TestIssuers_DelegatesNameTheirIssuer(t *testing.T) {
	first, second := oidctest.Start(t, "/"), oidctest.Start(t, "/")
	configs := []auth.IssuerConfig{of(t, "", first), of(t, "corp", second)}
	verifier := newVerifier(t, configs...)
	p, err := verifier.Authenticate(t.Context(), time.Now(), bearer(second.Token(claimsOf(nil))))
	if err != nil {
		t.Fatal(err)
	}
	delegate, err := verifier.Delegate(p, natstest.Tenant(t, "acme"), "query.read")
	if err != nil {
		t.Fatal(err)
	}
	if restored, err := verifier.Restore(delegate, time.Now()); err != nil || restored.Subject != "corp:ada" {
		t.Errorf("%v, %v", restored, err)
	}
	if _, err := newVerifier(t, configs[0]).Restore(delegate, time.Now()); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("without its issuer: %v", err)
	}
	delegate.Issuer = first.URL
	if _, err := verifier.Restore(delegate, time.Now()); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("token of another issuer: %v", err)
	}
}

func TestIssuers_NoneNeedsNoPrefix(t *testing.T) {
	second := oidctest.Start(t, "/")
	verifier := newVerifier(t, of(t, "corp", second))
	if p, err := verifier.Authenticate(t.Context(), time.Now(), bearer(second.Token(claimsOf(nil)))); err != nil ||
		p.Subject != "corp:ada" {
		t.Errorf("%v, %v", p, err)
	}
}

func TestDiscovery_IsStrict(t *testing.T) {
	elsewhere := oidctest.Start(t, "/")
	redirecting := httptest.NewServer(
		http.RedirectHandler(elsewhere.URL+".well-known/openid-configuration", http.StatusFound),
	)
	t.Cleanup(redirecting.Close)
	for _, tc := range []struct {
		name     string
		announce map[string]any
		origins  []string
		want     string // "": accepted
	}{
		{"unchanged", nil, nil, ""},
		{"another issuer", map[string]any{"issuer": "https://evil.example"}, nil, "names another issuer"},
		{"a trailing slash", map[string]any{"issuer": "SELF/"}, nil, "names another issuer"},
		{"no issuer", map[string]any{"issuer": nil}, nil, "names another issuer"},
		{"keys elsewhere", map[string]any{"jwks_uri": elsewhere.URL + "jwks"}, nil, "key_origins"},
		{"keys at an allowed origin", map[string]any{"jwks_uri": elsewhere.URL + "jwks"}, []string{elsewhere.URL}, ""},
		{
			"keys in clear text", map[string]any{"jwks_uri": "http://169.254.169.254/latest"},
			[]string{"https://169.254.169.254"}, "https",
		},
		{"keys of a user", map[string]any{"jwks_uri": "http://a:b@127.0.0.1:1/"}, nil, "user"},
		{"keys in a file", map[string]any{"jwks_uri": "file:///etc/passwd"}, nil, "not a URL with a host"},
		{"no keys", map[string]any{"jwks_uri": nil}, nil, "jwks_uri"},
		{"keys that redirect", map[string]any{"jwks_uri": redirecting.URL}, []string{redirecting.URL}, "302"},
		{"a document that is large", map[string]any{"x": strings.Repeat("x", 1<<20)}, nil, "larger than"},
		{
			"a document that is deep",
			map[string]any{"x": json.RawMessage(strings.Repeat("[", 99) + strings.Repeat("]", 99))}, nil,
			"nested too deeply",
		},
	} {
		p := oidctest.Start(t, "/realms/acme")
		for member, value := range tc.announce {
			if text, ok := value.(string); ok {
				value = strings.Replace(text, "SELF", p.URL, 1)
			}
			p.Announce(member, value)
		}
		_, err := discover(t, auth.Discovery{Issuer: p.URL, KeyOrigins: tc.origins})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	for _, issuer := range []string{
		"http://id.example.com", "https://id.example.com?x=1", "https://id.example.com#x", "https://u:p@id.example.com",
		"https://", "id.example.com", "ftp://127.0.0.1", "http://127.0.0.1.example.com", "http://0.0.0.0",
	} {
		if err := (auth.Discovery{Issuer: issuer}).Check(); err == nil {
			t.Errorf("%s is accepted", issuer)
		}
	}
	if _, err := discover(t, auth.Discovery{Issuer: redirecting.URL}); err == nil ||
		!strings.Contains(err.Error(), "302") {
		t.Errorf("redirect followed: %v", err)
	}
}

func TestDiscovery_RotatedAndRetiredKeys(t *testing.T) {
	p := oidctest.Start(t, "/")
	config := of(t, "", p)
	verifier := newVerifier(t, config)
	old := p.Token(claimsOf(nil))
	accepted := func(token string) bool {
		_, err := verifier.Authenticate(t.Context(), time.Now(), bearer(token))
		return err == nil
	}
	if !accepted(old) {
		t.Error("the first key is not accepted")
	}
	p.Rotate()
	if !accepted(p.Token(claimsOf(nil))) {
		t.Error("the rotated key is not accepted")
	}
	if !accepted(old) {
		t.Error("the former key is rejected while published")
	}
	p.Retire()
	if err := config.Keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if accepted(old) {
		t.Error("the retired key is accepted")
	}
	if n := p.Reads("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("the discovery document is read %d times", n)
	}
}

// Thousands of tokens under unknown keys cause a bounded number of reads, for their issuer alone.
func TestIssuers_UnknownKeysCauseBoundedReadsPerIssuer(t *testing.T) {
	hostile, other := oidctest.Start(t, "/"), oidctest.Start(t, "/")
	verifier := newVerifier(t, of(t, "", hostile), of(t, "corp", other))
	forger := newSigner(t)
	claims, err := json.Marshal(claimsOf(map[string]any{"iss": hostile.URL, "exp": time.Now().Add(time.Hour).Unix()}))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for caller := range 4 {
		all.Go(func() {
			for n := range 500 {
				token := forger.sign(fmt.Sprintf(`{"alg":"EdDSA","kid":"junk-%d-%d"}`, caller, n), string(claims))
				if _, err := verifier.Authenticate(
					t.Context(), time.Now(), bearer(token),
				); !errors.Is(err, auth.ErrBadToken) {
					t.Errorf("forged token: %v", err)
				}
			}
		})
	}
	all.Wait()
	if n := hostile.Reads("/jwks"); n > 8 {
		t.Errorf("2000 tokens caused %d reads", n)
	}
	other.Rotate()
	if _, err := verifier.Authenticate(t.Context(), time.Now(), bearer(other.Token(claimsOf(nil)))); err != nil {
		t.Errorf("rotated key of another issuer: %v", err)
	}
}

// Known keys are accepted for a stated time while their issuer is unreachable; the state reports it.
func TestKeyRing_KnownKeysOutliveAnOutageForAStatedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := newSigner(t)
		source := &rotating{set: signer.set(t)}
		ring, err := auth.NewKeyRing(t.Context(), auth.KeyRingConfig{Source: source.read, MaxAge: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		verifier := newVerifier(t, accept(ring).Issuers...)
		token := func() []string { return signer.under("k") }
		changes := make(chan struct{}, 8)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			ring.Run(ctx, func() { changes <- struct{}{} }, func(error) {})
		}()
		if err := ring.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		p, err := verifier.Authenticate(t.Context(), time.Now(), token())
		if err != nil {
			t.Fatal(err)
		}
		if away := verifier.DegradedIssuers(); len(away) != 0 {
			t.Errorf("%v", away)
		}
		source.rotate(nil, errors.New("away"))
		time.Sleep(50 * time.Minute)
		if _, err := verifier.Authenticate(t.Context(), time.Now(), token()); err != nil || verifier.Revoked(p) {
			t.Errorf("within the time: %v", err)
		}
		if away := verifier.DegradedIssuers(); !strings.Contains(away["default"], "the known ones are accepted until") {
			t.Errorf("%v", away)
		}
		time.Sleep(12 * time.Minute)
		if _, err := verifier.Authenticate(t.Context(), time.Now(), token()); !errors.Is(err, auth.ErrBadToken) ||
			!verifier.Revoked(p) {
			t.Errorf("after the time: %v", err)
		}
		if away := verifier.DegradedIssuers(); !strings.Contains(away["default"], "are not known") {
			t.Errorf("%v", away)
		}
		select {
		case <-changes:
		default:
			t.Error("streams are not informed")
		}
		source.rotate(signer.set(t), nil)
		time.Sleep(2 * time.Minute)
		if _, err := verifier.Authenticate(t.Context(), time.Now(), token()); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		if away := verifier.DegradedIssuers(); len(away) != 0 {
			t.Errorf("%v", away)
		}
		stop()
		<-done
	})
}

// A provider's set has keys that are not for us. Keys that must not be published are an error there too.
func TestKeyRing_ForeignSetsMayHaveUnusableKeys(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := jose.JSONWebKey{Key: private.Public(), KeyID: "rsa", Use: "sig"} // without alg, as Entra ID publishes it
	open := func(set []byte, algorithms ...string) (*auth.KeyRing, error) {
		ring, err := auth.NewKeyRing(t.Context(),
			auth.KeyRingConfig{Source: fixed(set), Foreign: true, Algorithms: algorithms})
		if err != nil {
			t.Fatal(err)
		}
		return ring, ring.Refresh(t.Context())
	}
	set := keySet(t, good, jose.JSONWebKey{Key: private.Public(), KeyID: "other", Algorithm: "RS512"})
	set = []byte(
		strings.Replace(
			string(set), `"keys":[`,
			`"keys":[{"kty":"OKP","crv":"Ed448","kid":"x","x":"AA"},{"kty":"EC","crv":"secp256k1","kid":"y","x":"AA","y":"AA"},`,
			1,
		),
	)
	ring, err := open(set)
	if err != nil {
		t.Fatal(err)
	}
	verifier := newVerifier(t, accept(ring).Issuers...)
	sign := func(algorithm jose.SignatureAlgorithm) []string {
		signer, err := jose.NewSigner(
			jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: private, KeyID: "rsa"}}, nil,
		)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte(with("", "")))
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return bearer(text)
	}
	if _, err := verifier.Authenticate(t.Context(), time.Now(), sign(jose.RS256)); err != nil {
		t.Error(err)
	}
	if _, err := verifier.Authenticate(t.Context(), time.Now(), sign(jose.PS256)); err == nil {
		t.Error("the token chooses the algorithm")
	}
	for _, secret := range []string{
		`{"kty":"oct","kid":"s","alg":"HS256","k":"AAAA"}`,
		`{"kty":"OKP","crv":"Ed25519","kid":"s","alg":"EdDSA","x":"AA","d":"AA"}`,
	} {
		if _, err := open([]byte(strings.Replace(string(set), `"keys":[`, `"keys":[`+secret+",", 1))); err == nil ||
			!strings.Contains(err.Error(), "not a public key") {
			t.Errorf("%s: %v", secret, err)
		}
	}
	if _, err := open(set, "ES256"); err == nil || !strings.Contains(err.Error(), "no signing key") {
		t.Errorf("other algorithm required: %v", err)
	}
	// The public key as the secret of an HMAC (RFC 8725 §2.1).
	input := encode([]byte(`{"alg":"HS256","kid":"rsa"}`)) + "." + encode([]byte(with("", "")))
	mac := hmac.New(sha256.New, private.N.Bytes())
	mac.Write([]byte(input))
	if _, err := verifier.Authenticate(
		t.Context(), time.Now(), bearer(input+"."+encode(mac.Sum(nil))),
	); !errors.Is(err, auth.ErrBadToken) {
		t.Errorf("HMAC: %v", err)
	}
}
