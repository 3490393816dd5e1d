package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/natstest"
)

// Delegates are restored by another process, from their text form.
func TestDelegate_EndsWithItsCredential(t *testing.T) {
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	key, kept, err := auth.NewAPIKey("app", []string{"acme", "globex"}, []string{"query.read", "command.submit"},
		time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	keysOf := func(list ...auth.APIKey) *auth.APIKeyRing {
		ring, err := auth.OpenAPIKeys(t.Context(), func(context.Context) ([]byte, error) { return yaml.Marshal(list) })
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	verifier := func(issuer *auth.Issuer, keys *auth.APIKeyRing) *auth.Verifier {
		config, err := issuer.Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		config.APIKeys = keys
		v, err := auth.NewVerifier(config)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	caller, err := auth.NewPrincipal("ada", []string{"acme"},
		[]string{"query.read:wallets", "query.read:a b*", "command.submit"})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := issuer.Issue(caller, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now, tenant := time.Now(), natstest.Tenant(t, "acme")
	first, second := verifier(issuer, keysOf(kept)), verifier(issuer, keysOf(kept))
	changed := kept
	changed.Rights = []string{"query.read"}
	other, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	for credential, gone := range map[string][]*auth.Verifier{
		key:    {verifier(issuer, keysOf(changed)), verifier(issuer, keysOf()), verifier(issuer, nil)},
		signed: {verifier(other, keysOf(kept))},
	} {
		principal, err := first.Authenticate(t.Context(), now, []string{"Bearer " + credential})
		if err != nil {
			t.Fatal(err)
		}
		delegate, err := first.Delegate(principal, tenant, "query.read")
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(delegate)
		if err != nil {
			t.Fatal(err)
		}
		var sent auth.Delegate
		if err := json.Unmarshal(text, &sent); err != nil {
			t.Fatal(err)
		}
		restored, err := second.Restore(sent, now)
		if err != nil {
			t.Fatalf("%s: %v", principal.Subject, err)
		}
		if restored.Subject != principal.Subject || !restored.ActsFor(tenant) ||
			restored.ActsFor(natstest.Tenant(t, "globex")) || restored.AnyTenant ||
			!restored.Allows(
				"query.read", "wallets",
			) || restored.Holds("command.submit") || restored.Until.UnixMilli() != principal.Until.UnixMilli() ||
			second.Revoked(restored) {
			t.Errorf("%+v is restored as %+v", principal, restored)
		}
		for i, v := range gone {
			if _, err := v.Restore(sent, now); !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("%s, %d: after the revocation: %v", principal.Subject, i, err)
			}
		}
		if !principal.Until.IsZero() {
			if _, err := second.Restore(sent, principal.Until.Add(time.Second)); !errors.Is(err, auth.ErrExpired) {
				t.Errorf("%s: after its end: %v", principal.Subject, err)
			}
		}
	}
	if _, err := first.Delegate(caller, tenant, "query.read"); !errors.Is(err, auth.ErrNoCredential) {
		t.Errorf("principal without a credential: %v", err)
	}
}
