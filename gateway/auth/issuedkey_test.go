package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/oidctest"
)

// issue returns an issued key of acme, and its text.
func issue(expires time.Time) (auth.IssuedKey, string) {
	id, text, hash := credentials.NewAPIKey()
	return auth.IssuedKey{
		ID:       id,
		Hash:     hash,
		Tenants:  []string{"acme"},
		Rights:   []string{"query.read"},
		Expires:  expires,
		Revision: 1,
	}, text
}

func TestIssuedKeys_AreAcceptedWhileTheyAreStored(t *testing.T) {
	v := newVerifier(t, of(t, "", oidctest.Start(t, "/")))
	now := time.Now()
	key, text := issue(now.Add(time.Hour))
	other, otherText := issue(now.Add(time.Hour))
	if _, err := v.Authenticate(t.Context(), now, bearer(text)); !errors.Is(err, auth.ErrBadToken) {
		t.Errorf("before it is issued: %v", err)
	}
	if err := v.SetIssuedKeys([]auth.IssuedKey{key, other}); err != nil {
		t.Fatal(err)
	}
	p, err := v.Authenticate(t.Context(), now, bearer(text))
	if err != nil || p.Subject != "key:"+key.ID || !p.ActsFor(natstest.Tenant(t, "acme")) ||
		p.ActsFor(natstest.Tenant(t, "globex")) || !p.Holds("query.read") || !p.Until.Equal(key.Expires) {
		t.Fatalf("%+v, %v", p, err)
	}
	delegate, err := v.Delegate(p, natstest.Tenant(t, "acme"), "query.read")
	if err != nil {
		t.Fatal(err)
	}
	restored, err := v.Restore(delegate, now)
	if err != nil || v.Revoked(restored) {
		t.Fatal(err)
	}
	for what, wrong := range map[string]string{
		"another key's secret": text[:len("hgk_"+key.ID)] + otherText[len("hgk_"+other.ID):],
		"no secret":            "hgk_" + key.ID + "_",
		"its hash":             "hgk_" + key.ID + "_" + fmt.Sprintf("%x", key.Hash),
		"upper case":           strings.Replace(text, key.ID, strings.ToUpper(key.ID), 1),
		"more":                 text + "_",
	} {
		if _, err := v.Authenticate(t.Context(), now, bearer(wrong)); !errors.Is(err, auth.ErrBadToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := v.Authenticate(t.Context(), key.Expires.Add(1), bearer(text)); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	// A change of another key ends nothing.
	other.Revision++
	if err := v.SetIssuedKeys([]auth.IssuedKey{key, other}); err != nil || v.Revoked(p) || v.Revoked(restored) {
		t.Errorf("another key has changed: %v, revoked: %v", err, v.Revoked(p))
	}
	if err := v.SetIssuedKeys([]auth.IssuedKey{other}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Restore(delegate, now); !v.Revoked(p) || !v.Revoked(restored) || !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("a revoked key: %v", err)
	}
	if _, err := v.Authenticate(t.Context(), now, bearer(text)); !errors.Is(err, auth.ErrBadToken) {
		t.Errorf("a revoked key: %v", err)
	}
}

// A record that control would not have written is rejected, and no other key with it.
func TestIssuedKeys_InvalidRecordsAreRejected(t *testing.T) {
	v := newVerifier(t, of(t, "", oidctest.Start(t, "/")))
	now := time.Now()
	good, goodText := issue(now.Add(time.Hour))
	for what, change := range map[string]func(*auth.IssuedKey){
		"an id of the settings": func(k *auth.IssuedKey) { k.ID = "reporting" },
		"an id with a wildcard": func(k *auth.IssuedKey) { k.ID = "c.*" },
		"a short hash":          func(k *auth.IssuedKey) { k.Hash = k.Hash[:31] },
		"no hash":               func(k *auth.IssuedKey) { k.Hash = nil },
		"no expiry":             func(k *auth.IssuedKey) { k.Expires = time.Time{} },
		"an expiry of a clock that was ahead": func(k *auth.IssuedKey) {
			k.Expires = now.AddDate(1, 0, 0)
		},
		"no tenant": func(k *auth.IssuedKey) { k.Tenants = []string{"ACME!"} },
		"no right":  func(k *auth.IssuedKey) { k.Rights = []string{"everything"} },
	} {
		key, text := issue(now.Add(time.Hour))
		change(&key)
		err := v.SetIssuedKeys([]auth.IssuedKey{key, good})
		if _, known := v.Authenticate(t.Context(), now, bearer(text)); known == nil {
			t.Errorf("%s: accepted (%v)", what, err)
		}
		if _, err := v.Authenticate(t.Context(), now, bearer(goodText)); err != nil {
			t.Errorf("%s: the other key: %v", what, err)
		}
	}
	many := make([]auth.IssuedKey, auth.MaxIssuedKeys+1)
	for i := range many {
		many[i] = good
		many[i].ID = "c." + strings.NewReplacer("0", "a", "1", "b", "8", "c", "9", "d").Replace(fmt.Sprintf("%026d", i))
	}
	if err := v.SetIssuedKeys(many); err == nil || !strings.Contains(err.Error(), "6001") {
		t.Errorf("more keys than a gateway stores: %v", err)
	}
	if err := v.SetIssuedKeys(many[1:]); err != nil {
		t.Errorf("as many keys as a gateway stores: %v", err)
	}
	document := []byte("- {id: " + good.ID + ", sha256: " + fmt.Sprintf("%x", good.Hash) +
		", tenants: ['*'], rights: [query.read]}")
	if _, err := auth.OpenAPIKeys(t.Context(), text(document)); err == nil || !strings.Contains(err.Error(), "dot") {
		t.Errorf("a key of the settings with the id of an issued one: %v", err)
	}
}

// The revocations of a tenant have no effect on callers that act for others.
func TestRevocations_OfATenantCoverItsOwnPrincipalsAlone(t *testing.T) {
	provider := oidctest.Start(t, "/")
	v := newVerifier(t, of(t, "", provider))
	now := time.Now()
	tokens := map[string]string{}
	for name, tenants := range map[string][]string{
		"acme": {"acme"}, "globex": {"globex"}, "both": {"acme", "globex"}, "all": {"*"}, "none": {},
	} {
		tokens[name] = provider.Token(claimsOf(map[string]any{
			"sub": "ada", "jti": "1", "iat": now.Add(-time.Minute).Unix(), "tenants": tenants,
		}))
	}
	for what, r := range map[string]auth.Revocation{
		"by id":      {Tenant: "acme", Issuer: provider.URL, TokenID: "1"},
		"by subject": {Tenant: "acme", Subject: "ada", IssuedBefore: now},
		"by issuer":  {Tenant: "acme", Issuer: provider.URL, IssuedBefore: now},
	} {
		set, err := auth.NewRevocations([]auth.Revocation{r})
		if err != nil {
			t.Fatal(err)
		}
		v.SetRevocations(auth.RevocationsPlatform, set)
		for name, token := range tokens {
			p, err := v.Authenticate(t.Context(), now, bearer(token))
			if revoked := errors.Is(err, auth.ErrRevoked); revoked != (name == "acme") || !revoked && err != nil {
				t.Errorf("%s: the token of %s: %v", what, name, err)
			}
			if err == nil {
				if allocated := testing.AllocsPerRun(10, func() { v.Revoked(p) }); allocated > 0 {
					t.Errorf("%s: a check allocates %v objects", what, allocated)
				}
			}
		}
	}
}

// A token that is valid for longer than a revocation is stored would be accepted near its end.
func TestVerifier_LifetimeIsBoundedFromTheTimeOfIssue(t *testing.T) {
	provider := oidctest.Start(t, "/")
	v := newVerifier(t, of(t, "", provider))
	now := time.Now()
	for lifetime, accepted := range map[time.Duration]bool{
		auth.MaxTokenLifetime: true, auth.MaxTokenLifetime + time.Hour: false,
	} {
		token := provider.Token(claimsOf(map[string]any{
			"iat": now.Unix(), "exp": now.Add(lifetime).Unix(),
		}))
		if _, err := v.Authenticate(t.Context(), now.Add(lifetime-time.Minute), bearer(token)); (err == nil) !=
			accepted {
			t.Errorf("a token for %v, a minute before its end: %v", lifetime, err)
		}
	}
}

// A key authenticates without more heap objects than one of the settings.
func TestIssuedKeys_CostNoMoreThanKeysOfTheSettings(t *testing.T) {
	now := time.Now()
	settingsText, stored, err := auth.NewAPIKey("reporting", []string{"acme"}, []string{"query.read"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	document := fmt.Appendf(nil, "- {id: %s, sha256: %s, tenants: [acme], rights: [query.read]}", stored.ID,
		stored.Hash)
	ring, err := auth.OpenAPIKeys(t.Context(), text(bytes.Clone(document)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.NewVerifier(auth.Config{APIKeys: ring})
	if err != nil {
		t.Fatal(err)
	}
	key, issuedText := issue(now.Add(time.Hour))
	if err := v.SetIssuedKeys([]auth.IssuedKey{key}); err != nil {
		t.Fatal(err)
	}
	objects := map[string]float64{}
	for what, header := range map[string][]string{"settings": bearer(settingsText), "issued": bearer(issuedText)} {
		objects[what] = testing.AllocsPerRun(100, func() {
			if _, err := v.Authenticate(t.Context(), now, header); err != nil {
				t.Fatal(err)
			}
		})
	}
	if objects["issued"] > objects["settings"] {
		t.Errorf("heap objects per call: %v", objects)
	}
}

// text returns a source of a document.
func text(document []byte) auth.Source {
	return func(context.Context) ([]byte, error) { return document, nil }
}
