package control

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/natstest"
)

// issuing returns a control node that has the stores of credentials alone.
func issuing(ctx context.Context, t *testing.T) *Service {
	t.Helper()
	s := &Service{js: natstest.Start(t), log: zerolog.Nop()}
	if err := s.openIssued(ctx, []byte("a secret of thirty-two bytes....")); err != nil {
		t.Fatal(err)
	}
	return s
}

// A revocation beyond a bound is rejected, and known ones are extended, never shortened.
func TestRevoke_BoundsAndExtension(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	s := revocationService{Service: issuing(ctx, t)}
	revoke := func(tenant, subject string) (*controlv1.Revocation, error) {
		return s.revoke(ctx, credentials.Revocation{Tenant: tenant, Subject: subject, Reason: "r"}, nil, nil)
	}
	for n := range credentials.MaxTenantRevocations {
		if _, err := revoke("acme", fmt.Sprintf("s%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := revoke("acme", "one more"); connect.CodeOf(err) != connect.CodeResourceExhausted ||
		!strings.Contains(err.Error(), "100 revocations") || s.issued.refusedRevocations.Load() != 1 {
		t.Errorf("a tenant's bound: %v", err)
	}
	if _, err := revoke("acme", "s0"); err != nil {
		t.Errorf("a known subject: %v", err)
	}
	for _, tenant := range []string{"globex", ""} {
		if _, err := revoke(tenant, "s0"); err != nil {
			t.Errorf("tenant %q is affected: %v", tenant, err)
		}
	}
	long := strings.Repeat("é", credentials.MaxRevocationTexts/2) + "x"
	if _, err := revoke("", long); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a subject that gateways would reject: %v", err)
	}
	key := "hgk_c.a_" + strings.Repeat("s", 43)
	for _, r := range []credentials.Revocation{{Issuer: "i", TokenID: key}, {Subject: key}, {Issuer: key}} {
		if _, err := s.revoke(ctx, r, nil, nil); connect.CodeOf(err) != connect.CodeInvalidArgument ||
			strings.Contains(err.Error(), key) {
			t.Errorf("a credential in place of its id: %v", err)
		}
	}
	serial := credentials.Revocation{Issuer: credentials.CertificatesIssuer + "partners", TokenID: "no serial"}
	if _, err := s.revoke(ctx, serial, nil, nil); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a serial number that no certificate has: %v", err)
	}
	leaked, err := s.RevokeSubject(ctx, &controlv1.RevokeSubjectRequest{Subject: "mia", Reason: "leaked " + key})
	if err != nil || leaked.GetRevocation().GetReason() != "leaked hgk_c.a_…" {
		t.Errorf("the reason is stored as %v, %v", leaked, err)
	}
	first, err := s.RevokeSubject(ctx, &controlv1.RevokeSubjectRequest{Subject: "ada", Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	past := first.GetRevocation().GetIssuedBefore().AsTime().Add(-time.Hour)
	for what, req := range map[string]*controlv1.RevokeSubjectRequest{
		"an earlier time": {Subject: "ada", IssuedBefore: timestamppb.New(past), Reason: "r"},
		"an earlier expiry": {Subject: "ada", IssuedBefore: timestamppb.New(past),
			ExpireTime: timestamppb.New(time.Now().Add(time.Hour)), Reason: "r"},
	} {
		again, err := s.RevokeSubject(ctx, req)
		if err != nil || again.GetRevocation().GetIssuedBefore().AsTime().Before(past.Add(time.Hour)) ||
			again.GetRevocation().GetExpireTime().AsTime().Before(first.GetRevocation().GetExpireTime().AsTime()) {
			t.Errorf("%s shortens the revocation: %v, %v", what, again, err)
		}
	}
}

// An issuer, and a tenant, have a bounded number of keys; others are not affected.
func TestIssue_Bounds(t *testing.T) {
	ctx := contextkit.PlatformContext(t.Context())
	s := apiKeyService{Service: issuing(ctx, t)}
	for n := range credentials.MaxTenantAPIKeys {
		key := credentials.APIKey{Tenant: "acme", CreatedBy: fmt.Sprintf("admin-%d", n%2),
			Expires: time.Now().Add(time.Hour)}
		if n < 2 {
			key.CreatedBy = "busy"
		}
		key.ID, _, key.Hash = credentials.NewAPIKey()
		if _, err := s.issued.keys.Put(ctx, key.ID, key, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.admit(credentials.APIKey{Tenant: "acme", CreatedBy: "x"}); connect.CodeOf(err) !=
		connect.CodeResourceExhausted || s.issued.refusedKeys.Load() != 1 {
		t.Errorf("a tenant's bound: %v", err)
	}
	for n := range credentials.MaxIssuerAPIKeys - 2 {
		key := credentials.APIKey{CreatedBy: "busy", Expires: time.Now().Add(time.Hour)}
		if n == 0 {
			key.Revoked = time.Now() // it counts until it is deleted
		}
		key.ID, _, key.Hash = credentials.NewAPIKey()
		if _, err := s.issued.keys.Put(ctx, key.ID, key, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tenant := range []string{"", "globex"} {
		if err := s.admit(credentials.APIKey{Tenant: tenant, CreatedBy: "busy"}); connect.CodeOf(err) !=
			connect.CodeResourceExhausted {
			t.Errorf("an issuer's bound, tenant %q: %v", tenant, err)
		}
		if err := s.admit(credentials.APIKey{Tenant: tenant, CreatedBy: "other"}); err != nil {
			t.Errorf("another issuer, tenant %q: %v", tenant, err)
		}
	}
	page, err := s.ListApiKeys(ctx, &controlv1.ListApiKeysRequest{CreatedBy: "busy", PageSize: 60})
	if err != nil || len(page.GetApiKeys()) != 60 || page.GetNextPageToken() == "" {
		t.Fatalf("%d keys, %v", len(page.GetApiKeys()), err)
	}
	rest, err := s.ListApiKeys(ctx, &controlv1.ListApiKeysRequest{CreatedBy: "busy",
		PageToken: page.GetNextPageToken()})
	if err != nil || len(rest.GetApiKeys()) != 40 || rest.GetNextPageToken() != "" {
		t.Errorf("%d keys, %v", len(rest.GetApiKeys()), err)
	}
}
