package fleet

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// verifier is the part of a gateway that verifies credentials.
type verifier struct {
	*auth.Verifier

	changed chan struct{}
}

func (v verifier) notify() {
	select {
	case v.changed <- struct{}{}:
	default: // the reader looks at the state, not at the number of changes
	}
}

func (v verifier) SetRevocations(set *auth.Revocations) {
	v.Verifier.SetRevocations(auth.RevocationsPlatform, set)
	v.notify()
}

func (v verifier) RevocationsAway() { v.Verifier.RevocationsAway(auth.RevocationsPlatform); v.notify() }

func (v verifier) SetIssuedKeys(keys []auth.IssuedKey) error {
	defer v.notify()
	return v.Verifier.SetIssuedKeys(keys)
}

func (v verifier) IssuedKeysAway() { v.Verifier.IssuedKeysAway(); v.notify() }

// A gateway loads the stored revocations and keys before it serves, follows changes, and reports when it does not
// receive them.
func TestCredentials_AreLoadedThenFollowed(t *testing.T) {
	t.Parallel()
	if credentials.MaxRevocationTexts > auth.MaxRevocationBytes ||
		credentials.MaxTokenLifetime < auth.MaxTokenLifetime {
		t.Error("control stores revocations that gateways reject, or forgets them too early")
	}
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "https://issuer.example", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	config, err := issuer.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := auth.NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	gateway := verifier{accepted, make(chan struct{}, 1)}
	principal, err := auth.NewPrincipal("ada", []string{"acme"}, []string{"query.read"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.Issue(principal, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	revocations, err := credentials.OpenStore[credentials.Revocation](ctx, js, streams.BucketRevocations)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := credentials.OpenStore[credentials.APIKey](ctx, js, streams.BucketAPIKeys)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ada := credentials.Revocation{Subject: "ada", IssuedBefore: now.Add(time.Minute), Expires: now.Add(time.Hour)}
	stored, err := revocations.Put(ctx, ada.ID(), ada, 0)
	if err != nil {
		t.Fatal(err)
	}
	key := credentials.APIKey{Tenants: []string{"acme"}, Rights: []string{"query.read"}, Expires: now.Add(time.Hour)}
	var text string
	key.ID, text, key.Hash = credentials.NewAPIKey()
	storedKey, err := keys.Put(ctx, key.ID, key, 0)
	if err != nil {
		t.Fatal(err)
	}

	issued, err := OpenCredentials(ctx, js, gateway, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	authenticate := func(credential string) error {
		_, err := gateway.Authenticate(ctx, time.Now(), []string{"Bearer " + credential})
		return err
	}
	if err := authenticate(token); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("a stored revocation: %v", err)
	}
	if err := authenticate(text); err != nil {
		t.Errorf("a stored key: %v", err)
	}

	var outage atomic.Bool
	following, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); issued.Follow(following, outage.Load) }()
	t.Cleanup(func() { stop(); <-done })
	until := func(what string, fits func() bool) {
		t.Helper()
		for !fits() {
			natstest.Await(t, gateway.changed, what)
		}
	}
	ada.Withdrawn = true
	if _, err := revocations.Put(ctx, ada.ID(), ada, stored.Revision); err != nil {
		t.Fatal(err)
	}
	until("the revocation is withdrawn", func() bool { return authenticate(token) == nil })
	key.Revoked = now
	if _, err := keys.Put(ctx, key.ID, key, storedKey.Revision); err != nil {
		t.Fatal(err)
	}
	until("the key is revoked", func() bool { return authenticate(text) != nil })

	outage.Store(true)
	away := func() bool {
		return len(gateway.DegradedRevocations()) > 0 && gateway.DegradedIssuedKeys() != ""
	}
	until("the outage is shown", away)
	outage.Store(false)
	until("its end is shown", func() bool {
		return len(gateway.DegradedRevocations()) == 0 && gateway.DegradedIssuedKeys() == ""
	})

	// A key that another process has stored, with rights of its choice, is rejected; so is one without a record.
	forged := key
	forged.Revoked, forged.Rights = time.Time{}, []string{"fleet.admin"}
	var forgedText string
	forged.ID, forgedText, forged.Hash = credentials.NewAPIKey()
	plain, err := kv.Open[credentials.APIKey](ctx, js, streams.BucketAPIKeys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Put(ctx, forged.ID, forged, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, js, streams.BucketRevocations, ada.ID(), []byte(`{"v":1,"data":"AAAA"}`)); err != nil {
		t.Fatal(err)
	}
	until("a foreign revocation is shown", func() bool { return len(gateway.DegradedRevocations()) > 0 })
	if err := authenticate(forgedText); err == nil {
		t.Error("a forged key is accepted")
	}
	again, err := OpenCredentials(ctx, js, gateway, zerolog.Nop()) // as at the next start
	if err != nil || again == nil || authenticate(forgedText) == nil {
		t.Errorf("a forged key is accepted after a start: %v", err)
	}
}
