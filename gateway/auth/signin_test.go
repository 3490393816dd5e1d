package auth_test

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/oidctest"
)

// The origins that pages may call are exactly those of the endpoints that the discovery document names elsewhere than
// at the issuer; a document that names others than https ones changes nothing.
func TestSignInOrigins_AreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, "/realms/corp")
	origins := auth.Discovery{Issuer: p.URL}.SignInOrigins()
	if got := origins.Current(); len(got) > 0 {
		t.Errorf("before the first read: %q", got)
	}
	refresh := func(want ...string) {
		t.Helper()
		if err := origins.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := origins.Current(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	refresh()
	split := p.Split()
	refresh(split)
	p.Announce("revocation_endpoint", "https://Revoke.example.com:443/r")
	refresh(split, "https://revoke.example.com")
	p.Announce("revocation_endpoint", "https://login.example.com:8443/r")
	refresh(split, "https://login.example.com:8443")
	for member, value := range map[string]any{
		"token_endpoint": "http://tokens.example.com/token", "revocation_endpoint": "javascript:alert(1)",
		"issuer": "https://evil.example",
	} {
		p.Announce(member, value)
		if err := origins.Refresh(t.Context()); err == nil {
			t.Errorf("%s %v is accepted", member, value)
		}
		if got := origins.Current(); !slices.Equal(got, []string{split, "https://login.example.com:8443"}) {
			t.Errorf("after %s: %q", member, got)
		}
	}
}
