package control

import (
	"context"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
)

const (
	// futureLeeway is how far ahead a client's clock may be.
	futureLeeway = 5 * time.Minute
	// expiryMargin is added to the time at which tokens expire: gateways' clocks may be behind,
	// and certificates may be valid for an hour more than tokens.
	expiryMargin = 2 * time.Hour
	// longestExpiry bounds the expiry of a token that a client names.
	longestExpiry = 10 * credentials.MaxTokenLifetime
	// apiKeySubjects begins the subjects of API keys.
	apiKeySubjects = "key:"
)

type revocationService struct {
	controlv1connect.UnimplementedRevocationServiceHandler

	*Service
}

// RevokeToken implements RevocationService.
func (s revocationService) RevokeToken(
	ctx context.Context, req *controlv1.RevokeTokenRequest,
) (*controlv1.RevokeTokenResponse, error) {
	revocation, err := s.revoke(ctx, credentials.Revocation{
		Issuer:  req.GetIssuer(),
		TokenID: req.GetTokenId(),
		Reason:  req.GetReason(),
	}, nil, req.GetExpireTime())
	return &controlv1.RevokeTokenResponse{Revocation: revocation}, err
}

// RevokeSubject implements RevocationService.
func (s revocationService) RevokeSubject(
	ctx context.Context, req *controlv1.RevokeSubjectRequest,
) (*controlv1.RevokeSubjectResponse, error) {
	revocation, err := s.revoke(ctx, credentials.Revocation{Subject: req.GetSubject(), Reason: req.GetReason()},
		req.GetIssuedBefore(), req.GetExpireTime())
	return &controlv1.RevokeSubjectResponse{Revocation: revocation}, err
}

// RevokeIssuer implements RevocationService.
func (s revocationService) RevokeIssuer(
	ctx context.Context, req *controlv1.RevokeIssuerRequest,
) (*controlv1.RevokeIssuerResponse, error) {
	revocation, err := s.revoke(ctx, credentials.Revocation{Issuer: req.GetIssuer(), Reason: req.GetReason()},
		req.GetIssuedBefore(), req.GetExpireTime())
	return &controlv1.RevokeIssuerResponse{Revocation: revocation}, err
}

// RevokeTenantToken implements RevocationService.
func (s revocationService) RevokeTenantToken(
	ctx context.Context, req *controlv1.RevokeTenantTokenRequest,
) (*controlv1.RevokeTenantTokenResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	revocation, err := s.revoke(ctx, credentials.Revocation{
		Tenant:  tenant,
		Issuer:  req.GetIssuer(),
		TokenID: req.GetTokenId(),
		Reason:  req.GetReason(),
	}, nil, req.GetExpireTime())
	return &controlv1.RevokeTenantTokenResponse{Revocation: revocation}, err
}

// RevokeTenantSubject implements RevocationService.
func (s revocationService) RevokeTenantSubject(
	ctx context.Context, req *controlv1.RevokeTenantSubjectRequest,
) (*controlv1.RevokeTenantSubjectResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	revocation, err := s.revoke(ctx, credentials.Revocation{
		Tenant:  tenant,
		Subject: req.GetSubject(),
		Reason:  req.GetReason(),
	}, req.GetIssuedBefore(), req.GetExpireTime())
	return &controlv1.RevokeTenantSubjectResponse{Revocation: revocation}, err
}

// ListRevocations implements RevocationService.
func (s revocationService) ListRevocations(
	_ context.Context, req *controlv1.ListRevocationsRequest,
) (*controlv1.ListRevocationsResponse, error) {
	all, err := s.issued.revocations.All()
	if err != nil {
		return nil, asConnectError(err)
	}
	page, next, err := pageOf(all, s.issued.revocationPages, "", req.GetPageToken(), req.GetPageSize(),
		func(credentials.Revocation) bool { return true }, revocationMessage)
	return &controlv1.ListRevocationsResponse{Revocations: page, NextPageToken: next}, err
}

// ListTenantRevocations implements RevocationService.
func (s revocationService) ListTenantRevocations(
	ctx context.Context, req *controlv1.ListTenantRevocationsRequest,
) (*controlv1.ListTenantRevocationsResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	all, err := s.issued.revocations.All()
	if err != nil {
		return nil, asConnectError(err)
	}
	page, next, err := pageOf(all, s.issued.tenantPages, tenant, req.GetPageToken(), req.GetPageSize(),
		func(r credentials.Revocation) bool { return r.Tenant == tenant }, revocationMessage)
	return &controlv1.ListTenantRevocationsResponse{Revocations: page, NextPageToken: next}, err
}

// WithdrawRevocation implements RevocationService.
func (s revocationService) WithdrawRevocation(
	ctx context.Context, req *controlv1.WithdrawRevocationRequest,
) (*controlv1.WithdrawRevocationResponse, error) {
	revocation, err := s.withdraw(ctx, req.GetId(), req.GetReason(),
		func(credentials.Revocation) bool { return true })
	return &controlv1.WithdrawRevocationResponse{Revocation: revocation}, err
}

// WithdrawTenantRevocation implements RevocationService.
func (s revocationService) WithdrawTenantRevocation(
	ctx context.Context, req *controlv1.WithdrawTenantRevocationRequest,
) (*controlv1.WithdrawTenantRevocationResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	revocation, err := s.withdraw(ctx, req.GetId(), req.GetReason(),
		func(r credentials.Revocation) bool { return r.Tenant == tenant })
	return &controlv1.WithdrawTenantRevocationResponse{Revocation: revocation}, err
}

// revoke stores a revocation, or extends the one of the same tokens: none is shortened.
func (s revocationService) revoke(
	ctx context.Context, r credentials.Revocation, before, expires *timestamppb.Timestamp,
) (*controlv1.Revocation, error) {
	now := time.Now().UTC()
	r.Reason = credentials.Mask(r.Reason)
	for field, text := range map[string]string{"issuer": r.Issuer, "token_id": r.TokenID, "subject": r.Subject} {
		if credentials.IsCredential(text) {
			return nil, connect.Errorf(
				connect.CodeInvalidArgument, "%s is a whole credential: nothing is revoked; pass "+
					"the claim of that name (iss, jti, sub) of a token, and revoke an API key with RevokeApiKey", field,
			)
		}
	}
	if r.OfCertificate() {
		if _, _, err := credentials.CertificateID(r.TokenID); err != nil {
			return nil, connect.Errorf(connect.CodeInvalidArgument,
				"token_id is of no certificate: %v: nothing is revoked; pass SERIAL, or SERIAL@ISSUER", err)
		}
	}
	if strings.HasPrefix(r.Subject, apiKeySubjects) {
		return nil, connect.NewError(connect.CodeInvalidArgument,
			"subject is that of an API key: revoke it with RevokeApiKey, or remove it from the gateways' file")
	}
	if bytes := len(r.Issuer) + len(r.TokenID) + len(r.Subject); bytes > credentials.MaxRevocationTexts {
		return nil, connect.Errorf(connect.CodeInvalidArgument,
			"issuer, token_id and subject have %d bytes, and at most %d are stored: nothing is revoked; revoke the "+
				"tokens by a shorter one of them", bytes, credentials.MaxRevocationTexts)
	}
	if len(r.TokenID) > credentials.MaxTokenID {
		return nil, connect.Errorf(connect.CodeInvalidArgument,
			"token_id has %d bytes, and no token has more than %d: nothing is revoked; revoke a certificate of a long "+
				"issuer by its serial number alone", len(r.TokenID), credentials.MaxTokenID)
	}
	if err := setTimes(&r, now, before, expires); err != nil {
		return nil, err
	}
	s.issued.revoking.Lock()
	defer s.issued.revoking.Unlock()
	for range maxTries {
		former, err := s.issued.revocations.Get(ctx, r.ID())
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return nil, asConnectError(err)
		}
		next := r
		if err == nil && !former.Value.Withdrawn {
			next.IssuedBefore = later(r.IssuedBefore, former.Value.IssuedBefore)
			next.Expires = later(r.Expires, former.Value.Expires)
			if next.IssuedBefore.Equal(former.Value.IssuedBefore) && next.Expires.Equal(former.Value.Expires) {
				return revocationMessage(former.Value), nil // it covers them already
			}
		}
		if err := s.admit(r); err != nil {
			return nil, err
		}
		next.By, next.Time = caller(ctx), now
		stored, err := s.issued.revocations.Put(ctx, next.ID(), next, former.Revision)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		s.logRevocation(stored.Value, "tokens are revoked")
		return revocationMessage(stored.Value), nil
	}
	return nil, asConnectError(kv.ErrChanged)
}

// setTimes sets the times of a revocation.
func setTimes(r *credentials.Revocation, now time.Time, before, expires *timestamppb.Timestamp) error {
	for field, at := range map[string]*timestamppb.Timestamp{"issued_before": before, "expire_time": expires} {
		// Gateways reject the zero time, and JSON has no years before 0.
		if at != nil && (at.CheckValid() != nil || at.GetSeconds() < 0) {
			return connect.Errorf(connect.CodeInvalidArgument, "%s is no time after 1970: nothing is revoked", field)
		}
	}
	if r.TokenID == "" {
		r.IssuedBefore = now
		if before != nil {
			r.IssuedBefore = before.AsTime()
		}
		if r.IssuedBefore.After(now.Add(futureLeeway)) {
			return connect.NewError(connect.CodeInvalidArgument, "issued_before is in the future: leave it out to "+
				"revoke all tokens that have been issued")
		}
	}
	switch {
	case expires != nil:
		r.Expires = expires.AsTime()
	case r.OfCertificate(): // its validity may begin in the future
		r.Expires = now.Add(longestExpiry - expiryMargin)
	case r.TokenID != "":
		r.Expires = now.Add(credentials.MaxTokenLifetime)
	default:
		r.Expires = r.IssuedBefore.Add(credentials.MaxTokenLifetime)
	}
	r.Expires = r.Expires.Add(expiryMargin)
	switch {
	case r.Expires.Before(now):
		return connect.NewError(connect.CodeInvalidArgument, "the tokens have expired: there is nothing to revoke")
	case r.Expires.After(now.Add(longestExpiry)):
		return connect.NewError(connect.CodeInvalidArgument, "expire_time is more than ten years from now")
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// admit returns an error if a further revocation would exceed a bound.
func (s revocationService) admit(r credentials.Revocation) (err error) {
	all, err := s.issued.revocations.All()
	if err != nil {
		return asConnectError(err)
	}
	if _, known := all[r.ID()]; known {
		return nil
	}
	ofTenant, ofTenants := 0, 0
	for _, entry := range all {
		if entry.Value.Tenant != "" {
			ofTenants++
		}
		if r.Tenant != "" && entry.Value.Tenant == r.Tenant {
			ofTenant++
		}
	}
	defer func() {
		if err != nil {
			s.issued.refusedRevocations.Add(1)
		}
	}()
	const remedy = "nothing is revoked: revoke all tokens of their subject or issuer instead, or withdraw " +
		"revocations, which are deleted after a day"
	_, bytes, _ := s.issued.revocations.Size()
	switch {
	case r.Tenant != "" && ofTenant >= credentials.MaxTenantRevocations:
		return tooMany(rpc.ReasonTooManyRevocations, "tenant %s has %d revocations: %s", r.Tenant, ofTenant, remedy)
	case r.Tenant != "" && ofTenants >= credentials.MaxAllTenantRevocations,
		len(all) >= credentials.MaxRevocations, bytes >= credentials.MaxRevocationBytes:
		return tooMany(rpc.ReasonTooManyRevocations, "the platform stores no further revocation: %s", remedy)
	}
	return nil
}

// withdraw ends a revocation that is the caller's to end.
func (s revocationService) withdraw(
	ctx context.Context, id, reason string, owned func(credentials.Revocation) bool,
) (*controlv1.Revocation, error) {
	s.issued.revoking.Lock()
	defer s.issued.revoking.Unlock()
	for range maxTries {
		former, err := s.issued.revocations.Get(ctx, id)
		if errors.Is(err, kv.ErrNotFound) || err == nil && !owned(former.Value) {
			return nil, connect.Errorf(connect.CodeNotFound, "there is no revocation %s", id)
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		r := former.Value
		if r.Withdrawn {
			return revocationMessage(r), nil
		}
		now := time.Now().UTC()
		r.Withdrawn, r.By, r.Reason, r.Time = true, caller(ctx), credentials.Mask(reason), now
		r.Expires = now.Add(credentials.WithdrawnFor)
		stored, err := s.issued.revocations.Put(ctx, id, r, former.Revision)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		s.logRevocation(stored.Value, "a revocation of tokens is withdrawn")
		return revocationMessage(stored.Value), nil
	}
	return nil, asConnectError(kv.ErrChanged)
}

func (s revocationService) logRevocation(r credentials.Revocation, message string) {
	s.log.Warn().Str("id", r.ID()).Str("tenant", r.Tenant).Str("issuer", r.Issuer).Str("token_id", r.TokenID).
		Str("subject", r.Subject).Time("issued_before", r.IssuedBefore).Str("by", r.By).Str("reason", r.Reason).
		Msg(message)
}

func revocationMessage(r credentials.Revocation) *controlv1.Revocation {
	out := &controlv1.Revocation{
		Id:         r.ID(),
		TenantId:   r.Tenant,
		Issuer:     r.Issuer,
		TokenId:    r.TokenID,
		Subject:    r.Subject,
		ExpireTime: timestamppb.New(r.Expires),
		Withdrawn:  r.Withdrawn,
		By:         r.By,
		Reason:     r.Reason,
		Time:       timestamppb.New(r.Time),
	}
	if !r.IssuedBefore.IsZero() {
		out.IssuedBefore = timestamppb.New(r.IssuedBefore)
	}
	return out
}
