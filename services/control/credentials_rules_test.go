package control

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// A request that names no tokens that can be revoked, or times that no token has, revokes nothing; one at a bound is
// accepted, and stored until the tokens have expired by a gateway's clock that is behind.
func TestRevoke_RequestsAtTheirBounds(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	s := revocationService{Service: issuing(ctx, t)}
	in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	text := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		revocation      credentials.Revocation
		before, expires *timestamppb.Timestamp
		valid           bool
	}{
		"the longest subject": {
			credentials.Revocation{Subject: text(credentials.MaxRevocationTexts)}, nil, nil, true,
		},
		"a longer subject": {
			credentials.Revocation{Subject: text(credentials.MaxRevocationTexts + 1)}, nil, nil, false,
		},
		"long texts together": {
			credentials.Revocation{Issuer: text(credentials.MaxRevocationTexts), TokenID: "x"}, nil, nil, false,
		},
		"the longest id": {
			credentials.Revocation{Issuer: "i", TokenID: text(credentials.MaxTokenID)}, nil, nil, true,
		},
		"a longer id, in bytes": {
			credentials.Revocation{Issuer: "k", TokenID: strings.Repeat("é", credentials.MaxTokenID/2+1)},
			nil, nil, false,
		},
		"the subject of an API key": {credentials.Revocation{Subject: "key:c.a"}, nil, nil, false},
		"a time before 1970": {
			credentials.Revocation{Subject: "a"}, &timestamppb.Timestamp{Seconds: -1}, in(time.Hour), false,
		},
		"an expiry before 1970": {
			credentials.Revocation{Issuer: "i", TokenID: "a"}, nil, &timestamppb.Timestamp{Seconds: -1}, false,
		},
		"no time": {
			credentials.Revocation{Subject: "b"}, &timestamppb.Timestamp{Nanos: -1}, in(time.Hour), false,
		},
		"a client's clock that is ahead": {
			credentials.Revocation{Subject: "c"}, in(futureLeeway - time.Minute), nil, true,
		},
		"a time in the future": {
			credentials.Revocation{Subject: "d"}, in(futureLeeway + time.Minute), nil, false,
		},
		"a token that has just expired": {
			credentials.Revocation{Issuer: "i", TokenID: "b"}, nil, in(time.Minute - expiryMargin), true,
		},
		"a token that expired long before": {
			credentials.Revocation{Issuer: "i", TokenID: "c"}, nil, in(-time.Minute - expiryMargin), false,
		},
		"the latest expiry": {
			credentials.Revocation{Issuer: "i"}, nil, in(longestExpiry - expiryMargin - time.Minute), true,
		},
		"a later expiry": {
			credentials.Revocation{Issuer: "j"}, nil, in(longestExpiry - expiryMargin + time.Minute), false,
		},
	} {
		got, err := s.revoke(ctx, c.revocation, c.before, c.expires)
		_, stored := func() (credentials.Entry[credentials.Revocation], bool) {
			all, err := s.issued.revocations.All()
			if err != nil {
				t.Fatal(err)
			}
			entry, ok := all[c.revocation.ID()]
			return entry, ok
		}()
		if c.valid != (err == nil) || c.valid != stored ||
			!c.valid && connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, stored %v, want valid %v", name, err, stored, c.valid)
		}
		if c.valid && c.expires != nil && !got.GetExpireTime().AsTime().Equal(c.expires.AsTime().Add(expiryMargin)) {
			t.Errorf("%s: stored until %v", name, got.GetExpireTime().AsTime())
		}
	}
}

// The validity of a certificate may begin long after its revocation, which is stored until it has ended in any case.
func TestRevoke_CertificatesOfTheFutureStayRevoked(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	s := revocationService{Service: issuing(ctx, t)}
	partners := credentials.CertificatesIssuer + "partners"
	years := time.Now().Add(9 * 365 * 24 * time.Hour)
	until := timestamppb.New(time.Now().Add(time.Hour))
	for id, expires := range map[string]*timestamppb.Timestamp{
		"0a:1b": nil, "0A1B@CN=Partners CA,O=Acme": nil, "0C": until,
	} {
		res, err := s.RevokeToken(
			ctx, &controlv1.RevokeTokenRequest{Issuer: partners, TokenId: id, ExpireTime: expires},
		)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.GetRevocation().GetExpireTime().AsTime(); got.After(years) != (expires == nil) {
			t.Errorf("%s: stored until %v", id, got)
		}
	}
	for _, id := range []string{"CN=Partners CA@0A1B", "0A1B@", "0A1B@Partners"} {
		_, err := s.RevokeToken(ctx, &controlv1.RevokeTokenRequest{Issuer: partners, TokenId: id})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// A repeated request changes nothing; one after a withdrawal revokes again, with its own times.
func TestRevoke_AgainAfterWithdrawal(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	s := revocationService{Service: issuing(ctx, t)}
	before := timestamppb.New(time.Now().Add(-time.Hour))
	revoke := func(reason string, before *timestamppb.Timestamp) *controlv1.Revocation {
		res, err := s.RevokeSubject(ctx,
			&controlv1.RevokeSubjectRequest{Subject: "ada", IssuedBefore: before, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetRevocation()
	}
	first := revoke("leaked", before)
	if again := revoke("again", before); again.GetReason() != "leaked" ||
		!again.GetTime().AsTime().Equal(first.GetTime().AsTime()) {
		t.Errorf("a repeated request changes the record: %v", again)
	}
	withdraw := func(id string) (*controlv1.Revocation, error) {
		res, err := s.WithdrawRevocation(ctx, &controlv1.WithdrawRevocationRequest{Id: id, Reason: "mistake"})
		return res.GetRevocation(), err
	}
	if r, err := withdraw(first.GetId()); err != nil || !r.GetWithdrawn() {
		t.Fatalf("withdrawn: %v, %v", r, err)
	}
	earlier := timestamppb.New(before.AsTime().Add(-time.Hour))
	if r := revoke("leaked after all", earlier); r.GetWithdrawn() || r.GetReason() != "leaked after all" ||
		!r.GetIssuedBefore().AsTime().Equal(earlier.AsTime()) {
		t.Errorf("after the withdrawal: %v", r)
	}
	if _, err := s.RevokeSubject(ctx, &controlv1.RevokeSubjectRequest{Subject: "bob", Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	page, err := s.ListRevocations(ctx, &controlv1.ListRevocationsRequest{PageSize: 1})
	if err != nil || len(page.GetRevocations()) != 1 || page.GetRevocations()[0].GetSubject() != "bob" {
		t.Fatalf("the revocation that was changed last: %v, %v", page, err)
	}
	rest, err := s.ListRevocations(ctx, &controlv1.ListRevocationsRequest{PageToken: page.GetNextPageToken()})
	if err != nil || len(rest.GetRevocations()) != 1 || rest.GetRevocations()[0].GetSubject() != "ada" {
		t.Errorf("the next page: %v, %v", rest, err)
	}
	if _, err := withdraw("unknown"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an unknown revocation: %v", err)
	}
}

// A caller grants only rights that it has, and key.admin not at all; the key's state follows its record, and a page's
// token is that of one list and one tenant.
func TestIssue_GrantsOnlyHeldRights(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	node := issuing(ctx, t)
	node.fleet.Nodes = []fleet.Node{{ID: "a", Tenants: []string{"acme", "globex"}}}
	server := connect.NewServer(contextkit.ServerInterceptor)
	controlv1connect.RegisterApiKeyServiceHandler(server, apiKeyService{Service: node})
	client := contextkit.NewClient(connectinprocess.New(server))
	keys := controlv1connect.NewApiKeyServiceClient(client)
	holding := func(ctx context.Context, rights ...string) context.Context {
		ctx, info := connect.NewClientContext(ctx)
		info.RequestHeader().Set(contextkit.HeaderRights, contextkit.EncodeRights(rights...))
		return ctx
	}
	for name, c := range map[string]struct {
		held  []string
		grant string
		want  connect.Code // 0: granted
	}{
		"a held right":     {[]string{"query.read", "key.admin"}, "query.read", 0},
		"a narrower right": {[]string{"query.read", "key.admin"}, "query.read:orders", 0},
		"a wider right": {
			[]string{"query.read:orders", "key.admin"}, "query.read", connect.CodePermissionDenied,
		},
		"another right": {
			[]string{"query.read", "key.admin"}, "command.submit", connect.CodePermissionDenied,
		},
		"the right to issue keys": {[]string{"key.admin"}, "key.admin", connect.CodeInvalidArgument},
		"a malformed right":       {[]string{"key.admin"}, "no right!", connect.CodeInvalidArgument},
	} {
		_, err := keys.CreateApiKey(holding(ctx, c.held...), &controlv1.CreateApiKeyRequest{
			DisplayName: "a", Tenants: []string{"acme"}, Rights: []string{c.grant},
		})
		if c.want == 0 && err != nil || c.want != 0 && connect.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := keys.CreateApiKey(ctx, &controlv1.CreateApiKeyRequest{
		DisplayName: "a", Tenants: []string{"acme"}, Rights: []string{"query.read"},
	}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a caller without stated rights: %v", err)
	}

	of := func(tenant string) context.Context {
		return holding(contextkit.TenantContext(ctx, natstest.Tenant(t, tenant)), "query.read")
	}
	var ids []string
	for _, tenant := range []string{"acme", "acme", "globex"} {
		res, err := keys.CreateTenantApiKey(of(tenant),
			&controlv1.CreateTenantApiKeyRequest{DisplayName: "t", Rights: []string{"query.read"}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, res.GetApiKey().GetId())
	}
	foreign := &controlv1.RevokeTenantApiKeyRequest{Id: ids[2], Reason: "r"}
	if _, err := keys.RevokeTenantApiKey(of("acme"), foreign); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("another tenant's key: %v", err)
	}
	if _, err := keys.RevokeTenantApiKey(of("acme"),
		&controlv1.RevokeTenantApiKeyRequest{Id: ids[0], Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	page, err := keys.ListTenantApiKeys(of("acme"), &controlv1.ListTenantApiKeysRequest{PageSize: 1})
	if err != nil || len(page.GetApiKeys()) != 1 || page.GetNextPageToken() == "" ||
		page.GetApiKeys()[0].GetState() != controlv1.ApiKeyState_API_KEY_STATE_REVOKED ||
		page.GetApiKeys()[0].GetRevokeTime() == nil {
		t.Fatalf("the key that was changed last: %v, %v", page, err)
	}
	next := &controlv1.ListTenantApiKeysRequest{PageToken: page.GetNextPageToken()}
	rest, err := keys.ListTenantApiKeys(of("acme"), next)
	if err != nil || len(rest.GetApiKeys()) != 1 ||
		rest.GetApiKeys()[0].GetState() != controlv1.ApiKeyState_API_KEY_STATE_ACTIVE ||
		rest.GetApiKeys()[0].GetRevokeTime() != nil {
		t.Errorf("the next page: %v, %v", rest, err)
	}
	if _, err := keys.ListTenantApiKeys(of("globex"), next); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("the token of another tenant's page: %v", err)
	}
	if _, err := keys.ListApiKeys(
		ctx, &controlv1.ListApiKeysRequest{PageToken: page.GetNextPageToken()},
	); connect.CodeOf(
		err,
	) != connect.CodeInvalidArgument {
		t.Errorf("the token of a tenant's list at the platform's: %v", err)
	}
	if old := apiKeyMessage(credentials.APIKey{Expires: time.Now().Add(-time.Second)}); old.GetState() !=
		controlv1.ApiKeyState_API_KEY_STATE_EXPIRED {
		t.Errorf("an expired key is %v", old.GetState())
	}
}

// Until the stored records are known, nothing is issued or revoked, and no list is returned: the bounds cannot be
// checked.
func TestCredentials_UnknownRecordsAdmitNothing(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	node := &Service{js: natstest.Start(t), log: zerolog.Nop()}
	var err, failed error
	node.issued.keys, err = credentials.OpenStore[credentials.APIKey](ctx, node.js, streams.BucketAPIKeys)
	node.issued.revocations, failed = credentials.OpenStore[credentials.Revocation](
		ctx, node.js, streams.BucketRevocations,
	)
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	keys, revocations := apiKeyService{Service: node}, revocationService{Service: node}
	for name, call := range map[string]func() error{
		"a key is issued": func() error { _, _, err := keys.issue(ctx, credentials.APIKey{}, nil); return err },
		"keys are listed": func() error {
			_, err := keys.ListApiKeys(ctx,
				&controlv1.ListApiKeysRequest{})
			return err
		},
		"a subject is revoked": func() error {
			_, err := revocations.revoke(ctx, credentials.Revocation{Subject: "a"}, nil, nil)
			return err
		},
		"revocations are listed": func() error {
			_, err := revocations.ListRevocations(ctx, &controlv1.ListRevocationsRequest{})
			return err
		},
	} {
		if err := call(); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: %v, want UNAVAILABLE", name, err)
		}
	}
}
