package auth_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
)

func principal(t *testing.T) *auth.Principal {
	t.Helper()
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Principal{
		Subject: "app",
		Tenants: []contextkit.TenantID{acme},
		Rights:  []auth.Right{{Action: "query.read", Resources: "orders*"}},
	}
}

func open(t *testing.T) (*auth.Issuer, *auth.Verifier) {
	t.Helper()
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "issuer", "audience")
	if err != nil {
		t.Fatal(err)
	}
	config, err := issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	return issuer, verifier
}

func TestAuthenticate_TokenYieldsPrincipal(t *testing.T) {
	issuer, verifier := open(t)
	token, err := issuer.Issue(principal(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"Bearer " + token, "bearer " + token} {
		p, err := verifier.Authenticate(t.Context(), time.Now(), []string{header})
		if err != nil {
			t.Fatal(err)
		}
		acme, globex := principal(t).Tenants[0], contextkit.TenantID{}
		if p.Subject != "app" || !p.ActsFor(acme) || p.ActsFor(globex) || !p.Allows("query.read", "orders_open") ||
			p.Allows("query.read", "") || p.Allows("command.submit", "orders") {
			t.Fatalf("principal = %+v", p)
		}
	}
}

// withAPIKeys returns a verifier that accepts the API keys of a source, and their ring.
func withAPIKeys(t *testing.T, source auth.Source) (*auth.APIKeyRing, *auth.Verifier) {
	t.Helper()
	ring, err := auth.OpenAPIKeys(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	issuer, _ := open(t)
	config, err := issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config.APIKeys = ring
	verifier, err := auth.NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	return ring, verifier
}

func TestAuthenticate_APIKeyYieldsPrincipal(t *testing.T) {
	_, kept, err := auth.NewAPIKey("ci", []string{"acme"}, []string{"query.read:wal*"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	key, kept2, err := auth.NewAPIKey("app", []string{"*"}, []string{"command.submit"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	old, kept3, err := auth.NewAPIKey("old", []string{"acme"}, nil, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	document, err := yaml.Marshal([]auth.APIKey{kept, kept2, kept3})
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimPrefix(key, "hgk_app_")
	if strings.Contains(string(document), secret) {
		t.Error("the secret is stored")
	}
	keys := func(document []byte) auth.Source {
		return func(context.Context) ([]byte, error) { return document, nil }
	}
	_, verifier := withAPIKeys(t, keys(document))
	p, err := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + key})
	if err != nil || p.Subject != "key:app" || !p.AnyTenant || !p.Allows("command.submit", "wallet") ||
		p.Allows("query.read", "wallets") {
		t.Errorf("%+v, %v", p, err)
	}
	for name, tc := range map[string]struct {
		token string
		want  error
	}{
		"other secret":          {"hgk_app_" + strings.Repeat("A", 43), auth.ErrBadToken},
		"secret of another key": {"hgk_ci_" + secret, auth.ErrBadToken},
		"unknown":               {"hgk_nobody_" + secret, auth.ErrBadToken},
		"no secret":             {"hgk_app", auth.ErrBadToken},
		"expired":               {old, auth.ErrExpired},
	} {
		if _, err := verifier.Authenticate(
			t.Context(), time.Now(), []string{"Bearer " + tc.token},
		); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := auth.OpenAPIKeys(t.Context(), keys(append(document, document...))); err == nil {
		t.Error("duplicate key names are valid, want an error")
	}
	for _, bad := range []string{"App", "", "a_b"} {
		if _, _, err := auth.NewAPIKey(bad, []string{"acme"}, nil, time.Time{}); err == nil {
			t.Errorf("the id %q is accepted", bad)
		}
	}
}

func TestAPIKeyRing_FollowsItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, kept, err := auth.NewAPIKey("app", []string{"acme"}, []string{"query.read"}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		late, keptLate, err := auth.NewAPIKey("late", []string{"acme"}, nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		narrowed := kept
		narrowed.Rights = []string{"query.read:wallets"}
		list := func(keys ...auth.APIKey) []byte {
			document, err := yaml.Marshal(keys)
			if err != nil {
				t.Fatal(err)
			}
			return document
		}
		var (
			mu       sync.Mutex
			document = list(kept)
			fails    error
			changes  int
			reports  int
		)
		ring, verifier := withAPIKeys(t, func(context.Context) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			return document, fails
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { ring.Run(ctx, func() { changes++ }, func(error) { reports++ }) })
		defer running.Wait()
		defer cancel()
		first, err := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + key})
		if err != nil || verifier.Revoked(first) {
			t.Fatalf("%+v, %v", first, err)
		}
		for _, step := range []struct {
			what             string
			document         []byte
			fails            error
			wait             time.Duration
			revoked          bool
			app, late        bool // count
			changes, reports int
		}{
			{"unchanged list", list(kept), nil, time.Minute, false, true, false, 0, 0},
			{"added key", list(kept, keptLate), nil, 5 * time.Second, false, true, true, 1, 0},
			{"the file is seen half written", list(kept, keptLate)[:20], nil, 2 * time.Second, false, true, true, 1, 0},
			{"complete list after a partial one", list(kept, keptLate), nil, 5 * time.Second, false, true, true, 1, 0},
			{"unusable list", []byte("- {"), nil, time.Minute, false, true, true, 1, 1},
			{"missing list", list(kept, keptLate), errors.New("gone"), 3 * time.Second, false, true, true, 1, 2},
			{"narrowed key", list(narrowed, keptLate), nil, 5 * time.Second, true, true, true, 2, 2},
			{"revoked key", list(keptLate), nil, 5 * time.Second, true, false, true, 3, 2},
			{"all are", nil, nil, 5 * time.Second, true, false, false, 4, 2},
		} {
			mu.Lock()
			document, fails = step.document, step.fails
			mu.Unlock()
			time.Sleep(step.wait)
			synctest.Wait()
			_, app := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + key})
			_, other := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + late})
			if (app == nil) != step.app || (other == nil) != step.late || verifier.Revoked(first) != step.revoked ||
				changes != step.changes || reports != step.reports {
				t.Errorf("%s: app %v, late %v, revoked %v, %d changes, %d reports; want %+v", step.what, app, other,
					verifier.Revoked(first), changes, reports, step)
			}
		}
	})
}

func TestAuthenticate_TokenTimesHaveLeeway(t *testing.T) {
	issuer, _ := open(t)
	config, err := issuer.Config(t.Context())
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
			_, err := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + token})
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

// A clock that is set forward or back, by minutes or hours, accepts a token exactly while it shows a time at which the
// token is valid, with the leeway; a token that was verified before is no exception.
func TestAuthenticate_ClockThatIsSetAcceptsNoExpiredToken(t *testing.T) {
	issuer, verifier := open(t)
	token, err := issuer.Issue(principal(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(time.Hour)
	for _, left := range []time.Duration{
		time.Minute, -time.Minute, 30 * time.Minute, -auth.DefaultLeeway + 2*time.Second,
		-auth.DefaultLeeway - 2*time.Second, -3 * time.Hour,
		59 * time.Minute, -time.Hour, time.Second,
	} {
		_, err := verifier.Authenticate(t.Context(), expires.Add(-left), []string{"Bearer " + token})
		if accepted := err == nil; accepted != (left > -auth.DefaultLeeway) {
			t.Errorf("%v before it expires: %v", left, err)
		}
	}
}

func TestRight_CoversItsResources(t *testing.T) {
	for _, bad := range []string{
		"", "query", "Query.read", "query.read:", "query.read:a*b", "query.read:**", "query read",
	} {
		if _, err := auth.ParseRight(bad); !errors.Is(err, auth.ErrInvalidRight) {
			t.Errorf("%q is accepted", bad)
		}
	}
	allows := []struct {
		right, resource string
		want            bool
	}{
		{"query.read", "", true}, {"query.read", "orders", true},
		{"query.read:orders", "orders", true}, {"query.read:orders", "orders_open", false},
		{"query.read:orders", "", false},
		{"query.read:orders*", "orders_open", true}, {"query.read:orders*", "order", false},
		{"query.read:*", "anything", true}, {"query.read:*", "", false},
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

func TestRight_PartsOfAResource(t *testing.T) {
	for _, tc := range []struct {
		right, resource, part string
		want                  bool
	}{
		{"command.submit", "transfer", "complete", true},
		{"command.submit", "a.b", "c", true},
		{"command.submit:*", "transfer", "complete", true},
		{"command.submit:*", "", "complete", false},
		{"command.submit:transfer", "transfer", "complete", true},
		{"command.submit:transfer", "transfer", "", true},
		{"command.submit:transfer", "transfers", "complete", false},
		{"command.submit:trans*", "transfer", "complete", true},
		{"command.submit:trans*", "trans", "complete", true},
		{"command.submit:trans*", "tran", "complete", false},
		{"command.submit:trans*", "withdrawal", "complete", false},
		{"command.submit:transfer.request", "transfer", "request", true},
		{"command.submit:transfer.request", "transfer", "requests", false},
		{"command.submit:transfer.request", "transfer", "", false},
		{"command.submit:transfer.request", "transfer.request", "", false},
		{"command.submit:transfer.request", "transfer.request", "complete", false},
		{"command.submit:transfer.request", "transfer", "request.x", false},
		{"command.submit:transfer.*", "transfer", "request", true},
		{"command.submit:transfer.*", "transfer", "", false},
		{"command.submit:transfer.*", "transferx", "request", false},
		{"command.submit:transfer.re*", "transfer", "request", true},
		{"command.submit:transfer.re*", "transfer", "complete", false},
		{"command.submit:transfer.re*", "transfer", "r", false},
		{"command.internal", "transfer", "request", false},
	} {
		right, err := auth.ParseRight(tc.right)
		if err != nil {
			t.Fatal(err)
		}
		p := auth.Principal{Rights: []auth.Right{right}}
		if got := p.AllowsPart("command.submit", []byte(tc.resource), []byte(tc.part)); got != tc.want {
			t.Errorf("%s for %q of %q: %v, want %v", tc.right, tc.part, tc.resource, got, tc.want)
		}
	}
}

func TestRight_OfInternalCommandsHasNoWildcard(t *testing.T) {
	for _, good := range []string{
		"command.internal", "command.internal:transfer", "command.internal:transfer.complete",
	} {
		if _, err := auth.ParseRight(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"command.internal:*", "command.internal:trans*", "command.internal:transfer.*", "command.internal:a.b.c",
		"command.internal:a b", "command.internal:", "command.*", "*", "command.internal:transfer complete",
	} {
		if _, err := auth.ParseRight(bad); !errors.Is(err, auth.ErrInvalidRight) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestRight_InvalidIsNotIssued(t *testing.T) {
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key"), "i", "a")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(right string) (token, key error) {
		p, err := auth.NewPrincipal("app", []string{"acme"}, []string{right})
		if err != nil {
			t.Fatalf("%s: %v", right, err)
		}
		_, token = issuer.Issue(p, time.Hour)
		_, _, key = auth.NewAPIKey("app", []string{"acme"}, []string{right}, time.Time{})
		return token, key
	}
	for _, good := range []string{
		"command.submit", "command.submit:*", "command.submit:wallet", "command.submit:wal*",
		"command.submit:wallet.open", "command.submit:wallet.*", "command.submit:wallet.op*",
		"command.internal:wallet.open", "query.read:orders*", "fleet.admin:acme-1", "thing.read:a/b",
		"thing.read:shelves/a b/*", "thing.read:a *", "thing.read:Zoë", "thing.read:棚/1", "thing.read:c%2Fd",
		"thing.read:a,b:c",
	} {
		if token, key := issue(good); token != nil || key != nil {
			t.Errorf("%s: %v, %v", good, token, key)
		}
	}
	for _, bad := range []string{
		"command.submit:Wallet", "command.submit:wallet.", "command.submit:.open", "command.submit:wallet.open.x",
		"command.submit:wallet..open", "command.submit:wallet open", "command.submit: wallet",
		"command.submit:wallet:open", "command.submit:wallet.open,x",
		"query.read: orders", "query.read:orders ", "query.read: *", "query.read:a\tb", "query.read:a\nb",
		"query.read:a\u00a0b", "query.read:a\u200bb", "query.read:a\u202eb", "query.read:a\x00", "query.read:\xff",
	} {
		if token, key := issue(bad); !errors.Is(token, auth.ErrInvalidRight) || !errors.Is(key, auth.ErrInvalidRight) {
			t.Errorf("%s is issued: %v, %v", bad, token, key)
		}
	}
}

// A token for all tenants is one, and a token for some is none.
func TestIssue_TokenNamesItsTenants(t *testing.T) {
	issuer, verifier := open(t)
	for _, all := range []bool{true, false} {
		token, err := issuer.Issue(&auth.Principal{Subject: "app", AnyTenant: all}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		p, err := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + token})
		if err != nil || p.AnyTenant != all || p.ActsFor(principal(t).Tenants[0]) != all {
			t.Errorf("all tenants %v: %+v, %v", all, p, err)
		}
	}
}
