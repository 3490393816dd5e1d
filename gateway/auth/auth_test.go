package auth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

func principal(t *testing.T) *auth.Principal {
	t.Helper()
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Principal{Subject: "app", Tenants: []contextkit.TenantID{acme}, Rights: []auth.Right{{Action: "query.read", Resources: "orders*"}}}
}

func open(t *testing.T) (*auth.Issuer, *auth.Verifier) {
	t.Helper()
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "issuer", "audience")
	if err != nil {
		t.Fatal(err)
	}
	config, err := issuer.Config()
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	return issuer, verifier
}

func TestATokenSaysWhoCallsAndWhatTheyMay(t *testing.T) {
	issuer, verifier := open(t)
	token, err := issuer.Issue(principal(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"Bearer " + token, "bearer " + token} {
		p, err := verifier.Authenticate([]string{header})
		if err != nil {
			t.Fatal(err)
		}
		acme, globex := principal(t).Tenants[0], contextkit.TenantID{}
		if p.Subject != "app" || !p.ActsFor(acme) || p.ActsFor(globex) || !p.Allows("query.read", "orders_open") || p.Allows("query.read", "") || p.Allows("command.submit", "orders") {
			t.Fatalf("principal = %+v", p)
		}
	}
}

func TestATokenThatDoesNotHoldIsRefused(t *testing.T) {
	issuer, verifier := open(t)
	good, err := issuer.Issue(principal(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	otherIssuer, _ := open(t)
	foreign, _ := otherIssuer.Issue(principal(t), time.Hour)
	sameKey := func(name, audience string) string {
		path := filepath.Join(t.TempDir(), "key.json")
		one, err := auth.OpenIssuer(path, "issuer", "audience")
		if err != nil {
			t.Fatal(err)
		}
		config, _ := one.Config()
		if verifier, err = auth.NewVerifier(config); err != nil {
			t.Fatal(err)
		}
		two, err := auth.OpenIssuer(path, name, audience)
		if err != nil {
			t.Fatal(err)
		}
		token, _ := two.Issue(principal(t), time.Hour)
		return token
	}
	parts := strings.Split(good, ".")
	encode := base64.RawURLEncoding.EncodeToString
	cases := []struct {
		name   string
		header []string
		want   error
	}{
		{"no header", nil, auth.ErrNoCredential},
		{"empty header", []string{""}, auth.ErrNoCredential},
		{"another scheme", []string{"Basic " + good}, auth.ErrNoCredential},
		{"two headers", []string{"Bearer " + good, "Bearer " + good}, auth.ErrBadToken},
		{"not a token", []string{"Bearer x"}, auth.ErrBadToken},
		{"algorithm none", []string{"Bearer " + encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."}, auth.ErrBadToken},
		{"claims changed", []string{"Bearer " + parts[0] + "." + encode([]byte(`{"sub":"root"}`)) + "." + parts[2]}, auth.ErrBadToken},
		{"no signature", []string{"Bearer " + parts[0] + "." + parts[1] + "."}, auth.ErrBadToken},
		{"another key", []string{"Bearer " + foreign}, auth.ErrBadToken},
		{"endless", []string{"Bearer " + strings.Repeat("a", 20<<10)}, auth.ErrBadToken},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if p, err := verifier.Authenticate(tc.header); !errors.Is(err, tc.want) || p != nil {
				t.Fatalf("%v, %v; want %v", p, err, tc.want)
			}
		})
	}
	t.Run("another issuer", func(t *testing.T) {
		token := sameKey("somebody", "audience")
		if _, err := verifier.Authenticate([]string{"Bearer " + token}); !errors.Is(err, auth.ErrBadToken) {
			t.Fatal(err)
		}
	})
	t.Run("another audience", func(t *testing.T) {
		token := sameKey("issuer", "somebody")
		if _, err := verifier.Authenticate([]string{"Bearer " + token}); !errors.Is(err, auth.ErrBadToken) {
			t.Fatal(err)
		}
	})
}

func TestATokenIsSignedWithItsKeysAlgorithmAndNoOther(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwk.Import(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	_ = public.Set(jwk.KeyIDKey, "k")
	_ = public.Set(jwk.AlgorithmKey, jwa.RS256())
	keys := jwk.NewSet()
	_ = keys.AddKey(public)
	verifier, err := auth.NewVerifier(auth.Config{Keys: keys, Issuer: "issuer", Audience: "audience"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewBuilder().Issuer("issuer").Audience([]string{"audience"}).Subject("app").Expiration(time.Now().Add(time.Hour)).Build()
	if err != nil {
		t.Fatal(err)
	}
	// The classic confusion: HMAC under the public key, which everybody knows.
	secret, err := jwk.Import([]byte("public key bytes"))
	if err != nil {
		t.Fatal(err)
	}
	_ = secret.Set(jwk.KeyIDKey, "k")
	forged, err := jwt.Sign(token, jwt.WithKey(jwa.HS256(), secret))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Authenticate([]string{"Bearer " + string(forged)}); !errors.Is(err, auth.ErrBadToken) {
		t.Fatalf("HS256: %v", err)
	}
	signer, _ := jwk.Import(private)
	_ = signer.Set(jwk.KeyIDKey, "k")
	good, err := jwt.Sign(token, jwt.WithKey(jwa.RS256(), signer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Authenticate([]string{"Bearer " + string(good)}); err != nil {
		t.Fatalf("RS256: %v", err)
	}
}

func TestAnUnsafeConfigurationIsRefused(t *testing.T) {
	symmetric, _ := jwk.Import([]byte("0123456789abcdef0123456789abcdef"))
	_ = symmetric.Set(jwk.KeyIDKey, "k")
	_ = symmetric.Set(jwk.AlgorithmKey, jwa.HS256())
	keys := jwk.NewSet()
	_ = keys.AddKey(symmetric)
	for name, config := range map[string]auth.Config{
		"symmetric key": {Keys: keys, Issuer: "i", Audience: "a"},
		"no keys":       {Issuer: "i", Audience: "a"},
		"no issuer":     {Keys: keys, Audience: "a"},
	} {
		if _, err := auth.NewVerifier(config); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestATokenCountsWithinItsTimesAndTheLeeway(t *testing.T) {
	issuer, _ := open(t)
	config, err := issuer.Config()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		verifier, err := auth.NewVerifier(config)
		if err != nil {
			t.Fatal(err)
		}
		token, err := issuer.Issue(principal(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		use := func() error {
			_, err := verifier.Authenticate([]string{"Bearer " + token})
			return err
		}
		if err := use(); err != nil {
			t.Fatalf("fresh: %v", err)
		}
		time.Sleep(time.Minute + auth.DefaultLeeway - time.Second)
		if err := use(); err != nil {
			t.Fatalf("within the leeway: %v", err)
		}
		time.Sleep(3 * time.Second)
		if err := use(); !errors.Is(err, auth.ErrExpired) {
			t.Fatalf("beyond the leeway, although verified before: %v", err)
		}
	})
}

func TestARightIsAnActionNarrowedOrNot(t *testing.T) {
	for _, bad := range []string{"", "query", "Query.read", "query.read:", "query.read:a*b", "query.read:**", "query read"} {
		if _, err := auth.ParseRight(bad); !errors.Is(err, auth.ErrInvalidRight) {
			t.Errorf("%q is accepted", bad)
		}
	}
	allows := []struct {
		right, resource string
		want            bool
	}{
		{"query.read", "", true}, {"query.read", "orders", true},
		{"query.read:orders", "orders", true}, {"query.read:orders", "orders_open", false}, {"query.read:orders", "", false},
		{"query.read:orders*", "orders_open", true}, {"query.read:orders*", "order", false}, {"query.read:*", "anything", true}, {"query.read:*", "", false},
		{"command.submit", "orders", false},
	}
	for _, tc := range allows {
		right, err := auth.ParseRight(tc.right)
		if err != nil {
			t.Fatal(err)
		}
		p := auth.Principal{Rights: []auth.Right{right}}
		if got := p.Allows("query.read", tc.resource); got != tc.want {
			t.Errorf("%s for %q: %v, want %v", tc.right, tc.resource, got, tc.want)
		}
		if right.String() != tc.right {
			t.Errorf("%q prints as %q", tc.right, right)
		}
	}
}
