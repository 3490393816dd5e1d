package auth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/oidctest"
)

func TestRevocations_ByTokenSubjectAndIssuer(t *testing.T) {
	first, second := oidctest.Start(t, "/"), oidctest.Start(t, "/")
	verifier := newVerifier(t, of(t, "", first), of(t, "corp", second))
	now := time.Now()
	iat := now.Add(-time.Minute).Unix()
	type token struct {
		name string
		by   *oidctest.Provider
		more map[string]any
	}
	tokens := []token{
		{"ada", first, map[string]any{"jti": "1", "iat": iat}},
		{"ada's second", first, map[string]any{"jti": "2", "iat": now.Unix() + 5}},
		{"ada without iat", first, map[string]any{"jti": "3", "iat": nil}},
		{"eve", first, map[string]any{"sub": "eve", "jti": "4", "iat": iat}},
		{"corp:ada", second, map[string]any{"jti": "1", "iat": iat}},
		{"corp:ada without jti", second, map[string]any{"iat": iat}},
	}
	texts := map[string]string{}
	for _, token := range tokens {
		texts[token.name] = token.by.Token(claimsOf(token.more))
	}
	for _, tc := range []struct {
		name    string
		list    []auth.Revocation
		revoked string
	}{
		{"none", nil, ""},
		{"a token", []auth.Revocation{{Issuer: first.URL, TokenID: "1"}}, "ada"},
		{"a token of the other issuer", []auth.Revocation{{Issuer: second.URL, TokenID: "1"}}, "corp:ada"},
		{"a subject", []auth.Revocation{{Subject: "ada", IssuedBefore: now}}, "ada, ada without iat"},
		{"a subject later", []auth.Revocation{
			{Subject: "ada", IssuedBefore: now.Add(time.Minute)}, {Subject: "ada", IssuedBefore: now.Add(-time.Hour)},
		}, "ada, ada's second, ada without iat"},
		{"a subject within its second", []auth.Revocation{{Subject: "eve", IssuedBefore: time.Unix(iat, 1e6)}}, "eve"},
		{"a subject from its second on", []auth.Revocation{{Subject: "eve", IssuedBefore: time.Unix(iat, 0)}}, ""},
		{
			"a subject of the other issuer", []auth.Revocation{{Subject: "corp:ada", IssuedBefore: now}},
			"corp:ada, corp:ada without jti",
		},
		{"an issuer", []auth.Revocation{{Issuer: first.URL, IssuedBefore: now}}, "ada, ada without iat, eve"},
		{"unknown issuer", []auth.Revocation{{Issuer: "x", IssuedBefore: now}}, ""},
		{
			"expired revocation",
			[]auth.Revocation{{Subject: "eve", IssuedBefore: now, Expires: now.Add(-time.Second)}}, "",
		},
	} {
		set, err := auth.NewRevocations(tc.list)
		if err != nil {
			t.Fatal(err)
		}
		verifier.SetRevocations(auth.RevocationsPlatform, set)
		var revoked []string
		for _, token := range tokens {
			p, err := verifier.Authenticate(t.Context(), now, bearer(texts[token.name]))
			switch {
			case errors.Is(err, auth.ErrRevoked) && p == nil:
				revoked = append(revoked, token.name)
			case err != nil || verifier.Revoked(p):
				t.Errorf("%s: %s: %v", tc.name, token.name, err)
			}
		}
		if got := strings.Join(revoked, ", "); got != tc.revoked {
			t.Errorf("%s revokes %q, want %q", tc.name, got, tc.revoked)
		}
	}
}

// A principal that was admitted, and what was delegated from it, are revoked with their token.
func TestRevocations_CoverAdmittedPrincipalsAndDelegates(t *testing.T) {
	provider := oidctest.Start(t, "/")
	verifier := newVerifier(t, of(t, "corp", provider))
	p, err := verifier.Authenticate(t.Context(), time.Now(),
		bearer(provider.Token(claimsOf(map[string]any{"jti": "1"}))))
	if err != nil {
		t.Fatal(err)
	}
	delegate, err := verifier.Delegate(p, natstest.Tenant(t, "acme"), "query.read")
	if err != nil {
		t.Fatal(err)
	}
	restored, err := verifier.Restore(delegate, time.Now())
	if err != nil || verifier.Revoked(restored) {
		t.Fatal(err)
	}
	for _, revocation := range []auth.Revocation{
		{Issuer: provider.URL, TokenID: "1"}, {Subject: "corp:ada", IssuedBefore: time.Now().Add(time.Second)},
		{Issuer: provider.URL, IssuedBefore: time.Now().Add(time.Second)},
	} {
		set, err := auth.NewRevocations([]auth.Revocation{revocation})
		if err != nil {
			t.Fatal(err)
		}
		verifier.SetRevocations(auth.RevocationsFile, set)
		if _, err := verifier.Restore(delegate, time.Now()); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("%+v: delegate: %v", revocation, err)
		}
		if _, err := verifier.Delegate(p, natstest.Tenant(t, "acme"), "query.read"); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("%+v: new delegate: %v", revocation, err)
		}
		if !verifier.Revoked(p) || !verifier.Revoked(restored) {
			t.Errorf("%+v: they are not revoked", revocation)
		}
	}
}

func TestRevocations_AreChecked(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		revocation auth.Revocation
		want       string
	}{
		{auth.Revocation{}, "is missing"},
		{auth.Revocation{Issuer: "i"}, "issued_before is missing"},
		{auth.Revocation{Subject: "s"}, "issued_before is missing"},
		{auth.Revocation{TokenID: "1"}, "needs issuer"},
		{auth.Revocation{Issuer: "i", TokenID: "1", Subject: "s"}, "needs issuer"},
		{auth.Revocation{Issuer: "i", Subject: "s", IssuedBefore: now}, "needs no issuer"},
		{auth.Revocation{Subject: "key:app", IssuedBefore: now}, "API key"},
		{auth.Revocation{Issuer: "i", TokenID: strings.Repeat("x", 300)}, "more than 255 bytes"},
		{auth.Revocation{Issuer: "i", TokenID: strings.Repeat("x", 256)}, "more than 255 bytes"},
	} {
		if _, err := auth.NewRevocations([]auth.Revocation{tc.revocation}); err == nil ||
			!strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.revocation, err, tc.want)
		}
	}
	longest := auth.Revocation{Issuer: "i", TokenID: strings.Repeat("x", 255)}
	if _, err := auth.NewRevocations([]auth.Revocation{longest}); err != nil {
		t.Errorf("a token id of 255 bytes: %v", err)
	}
	if _, err := auth.NewRevocations(make([]auth.Revocation, auth.MaxRevocations+1)); err == nil ||
		!strings.Contains(err.Error(), "more than 10000") {
		t.Errorf("too many: %v", err)
	}
}

// A file of as many revocations as are allowed, each with the longest texts, fits the bound of files.
func TestRevocations_BoundsFitEachOther(t *testing.T) {
	entries := auth.MaxRevocations
	if testing.Short() {
		entries /= 10
	}
	path := filepath.Join(t.TempDir(), "revoked.yaml")
	var list strings.Builder
	for n := range entries {
		id := fmt.Sprintf("%0255d", n)
		fmt.Fprintf(&list, "- {issuer: %q, token_id: %q, expires: 2126-11-30T08:00:00.000000001Z}\n",
			strings.Repeat("i", auth.MaxRevocationBytes-len(id)), id)
	}
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.OpenRevocations(t.Context(), auth.FileOfRevocations(path)); err != nil {
		t.Errorf("%d revocations in %d bytes: %v", entries, list.Len(), err)
	}
	long := auth.Revocation{Issuer: strings.Repeat("i", auth.MaxRevocationBytes), TokenID: "1"}
	if _, err := auth.NewRevocations([]auth.Revocation{long}); err == nil ||
		!strings.Contains(err.Error(), "768 bytes") {
		t.Errorf("texts of more bytes: %v", err)
	}
	if err := os.Truncate(path, auth.MaxRevocationsBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.OpenRevocations(t.Context(), auth.FileOfRevocations(path)); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprint(auth.MaxRevocationsBytes)) {
		t.Errorf("a larger file: %v", err)
	}
}

// The list of the settings is followed; while it cannot be read, the former one applies and the state
// reports it.
func TestRevocationList_IsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &rotating{set: []byte("[]")}
		list, err := auth.OpenRevocations(t.Context(), source.read)
		if err != nil {
			t.Fatal(err)
		}
		signer := newSigner(t)
		ring, err := auth.OpenKeyRing(t.Context(), fixed(signer.set(t)))
		if err != nil {
			t.Fatal(err)
		}
		config := accept(ring)
		config.Revocations = list
		verifier, err := auth.NewVerifier(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			list.Run(ctx, func(set *auth.Revocations) { verifier.SetRevocations(auth.RevocationsFile, set) },
				func(error) { verifier.RevocationsAway(auth.RevocationsFile) })
		}()
		token := signer.under("k")
		check := func(when string, revoked, away bool) {
			t.Helper()
			time.Sleep(20 * time.Second)
			_, err := verifier.Authenticate(t.Context(), time.Now(), token)
			if errors.Is(err, auth.ErrRevoked) != revoked || (len(verifier.DegradedRevocations()) > 0) != away {
				t.Errorf("%s: %v, %v", when, err, verifier.DegradedRevocations())
			}
		}
		revoked := []byte(
			fmt.Sprintf("- {subject: app, issued_before: %s}\n", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)),
		)
		check("at first", false, false)
		source.rotate(revoked, nil)
		check("revoked", true, false)
		source.rotate(nil, errors.New("away"))
		check("the file is unreadable", true, true)
		source.rotate(revoked, nil)
		check("the file is back", true, false)
		source.rotate([]byte("- {subject: app}\n"), nil)
		check("the file is invalid", true, true)
		source.rotate([]byte("[]"), nil)
		check("empty list", false, false)
		stop()
		<-done
	})
}
