package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rights"
	"github.com/headgate/headgate/internal/rpc"
)

// rightIssueKeys is the right to issue API keys. No key has it: one that issues keys would not expire.
const rightIssueKeys = "key.admin"

// allTenants stands for all tenants.
const allTenants = "*"

type apiKeyService struct {
	controlv1connect.UnimplementedApiKeyServiceHandler

	*Service
}

// CreateApiKey implements ApiKeyService. Its policy is that of the platform: the caller acts for every
// tenant.
func (s apiKeyService) CreateApiKey(
	ctx context.Context, req *controlv1.CreateApiKeyRequest,
) (*controlv1.CreateApiKeyResponse, error) {
	for i, tenant := range req.GetTenants() {
		if _, err := contextkit.ParseTenantID(tenant); err != nil && tenant != allTenants {
			return nil, connect.Errorf(connect.CodeInvalidArgument, "tenants[%d]: %v", i, err)
		}
	}
	key, secret, err := s.issue(ctx, credentials.APIKey{
		Name:    req.GetDisplayName(),
		Tenants: req.GetTenants(),
		Rights:  req.GetRights(),
		Reason:  credentials.Mask(req.GetReason()),
	}, req.GetLifetime())
	return &controlv1.CreateApiKeyResponse{ApiKey: key, Secret: secret}, err
}

// CreateTenantApiKey implements ApiKeyService. Its policy is that of a tenant: the caller acts for it.
func (s apiKeyService) CreateTenantApiKey(
	ctx context.Context, req *controlv1.CreateTenantApiKeyRequest,
) (*controlv1.CreateTenantApiKeyResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	key, secret, err := s.issue(ctx, credentials.APIKey{
		Name:    req.GetDisplayName(),
		Tenant:  tenant,
		Tenants: []string{tenant},
		Rights:  req.GetRights(),
		Reason:  credentials.Mask(req.GetReason()),
	}, req.GetLifetime())
	return &controlv1.CreateTenantApiKeyResponse{ApiKey: key, Secret: secret}, err
}

// ListApiKeys implements ApiKeyService.
func (s apiKeyService) ListApiKeys(
	_ context.Context, req *controlv1.ListApiKeysRequest,
) (*controlv1.ListApiKeysResponse, error) {
	all, err := s.issued.keys.All()
	if err != nil {
		return nil, asConnectError(err)
	}
	page, next, err := pageOf(all, s.issued.keyPages, req.GetCreatedBy(), req.GetPageToken(), req.GetPageSize(),
		func(k credentials.APIKey) bool { return isBy(k, req.GetCreatedBy()) }, apiKeyMessage)
	return &controlv1.ListApiKeysResponse{ApiKeys: page, NextPageToken: next}, err
}

// ListTenantApiKeys implements ApiKeyService.
func (s apiKeyService) ListTenantApiKeys(
	ctx context.Context, req *controlv1.ListTenantApiKeysRequest,
) (*controlv1.ListTenantApiKeysResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	all, err := s.issued.keys.All()
	if err != nil {
		return nil, asConnectError(err)
	}
	scope := tenant + "/" + req.GetCreatedBy() // no name of a tenant has a slash
	page, next, err := pageOf(all, s.issued.tenantKeyPages, scope, req.GetPageToken(), req.GetPageSize(),
		func(k credentials.APIKey) bool { return k.Tenant == tenant && isBy(k, req.GetCreatedBy()) },
		apiKeyMessage)
	return &controlv1.ListTenantApiKeysResponse{ApiKeys: page, NextPageToken: next}, err
}

// isBy reports whether a key was issued by a subject; "": by any.
func isBy(k credentials.APIKey, subject string) bool { return subject == "" || k.CreatedBy == subject }

// RevokeApiKey implements ApiKeyService.
func (s apiKeyService) RevokeApiKey(
	ctx context.Context, req *controlv1.RevokeApiKeyRequest,
) (*controlv1.RevokeApiKeyResponse, error) {
	key, err := s.revoke(ctx, req.GetId(), req.GetReason(), func(credentials.APIKey) bool { return true })
	return &controlv1.RevokeApiKeyResponse{ApiKey: key}, err
}

// RevokeTenantApiKey implements ApiKeyService.
func (s apiKeyService) RevokeTenantApiKey(
	ctx context.Context, req *controlv1.RevokeTenantApiKeyRequest,
) (*controlv1.RevokeTenantApiKeyResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	key, err := s.revoke(ctx, req.GetId(), req.GetReason(),
		func(k credentials.APIKey) bool { return k.Tenant == tenant })
	return &controlv1.RevokeTenantApiKeyResponse{ApiKey: key}, err
}

// issue issues a key, and returns its text.
func (s apiKeyService) issue(
	ctx context.Context, key credentials.APIKey, lifetime *durationpb.Duration,
) (*controlv1.ApiKey, string, error) {
	if err := mayGrant(ctx, key.Rights); err != nil {
		return nil, "", err
	}
	s.issued.issuing.Lock()
	defer s.issued.issuing.Unlock()
	key.CreatedBy = caller(ctx)
	if err := s.admit(key); err != nil {
		return nil, "", err
	}
	var text string
	key.ID, text, key.Hash = credentials.NewAPIKey()
	key.Created = time.Now().UTC()
	key.Expires = key.Created.Add(credentials.DefaultKeyLifetime)
	if lifetime != nil {
		key.Expires = key.Created.Add(lifetime.AsDuration())
	}
	stored, err := s.issued.keys.Put(ctx, key.ID, key, 0)
	if err != nil {
		return nil, "", asConnectError(err)
	}
	s.logKey(stored.Value, key.CreatedBy, "an API key is issued")
	return apiKeyMessage(stored.Value), text, nil
}

// mayGrant returns an error if the caller does not have all of the rights, or one of them cannot be
// granted. Without the statement of a gateway, a caller has none.
func mayGrant(ctx context.Context, grants []string) error {
	var held []rights.Right
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		for _, text := range contextkit.RightsOf(info.RequestHeader()).List() {
			if right, err := rights.Parse(text); err == nil {
				held = append(held, right)
			}
		}
	}
	for i, text := range grants {
		right, err := rights.Parse(text)
		if err == nil {
			err = right.Check()
		}
		if err != nil {
			return connect.Errorf(connect.CodeInvalidArgument, "rights[%d]: %s", i,
				excerpt.Text(err.Error(), excerpt.Message))
		}
		if right.Action == rightIssueKeys {
			return connect.Errorf(connect.CodeInvalidArgument,
				"rights[%d]: %s cannot be granted: a key that issues keys would not expire", i, rightIssueKeys)
		}
		if !slices.ContainsFunc(held, func(h rights.Right) bool { return h.Includes(right) }) {
			return rpc.WithDetails(
				connect.Errorf(connect.CodePermissionDenied, "rights[%d]: the credential does not have %q", i, right),
				rpc.Reason(rpc.ReasonMissingRight, "right", right.String()),
			)
		}
	}
	return nil
}

// admit returns an error if a further key would exceed a bound.
func (s apiKeyService) admit(key credentials.APIKey) (err error) {
	all, err := s.issued.keys.All()
	if err != nil {
		return asConnectError(err)
	}
	byIssuer, ofTenant, ofTenants := 0, 0, 0
	for _, entry := range all {
		if isBy(entry.Value, key.CreatedBy) {
			byIssuer++
		}
		if entry.Value.Tenant != "" {
			ofTenants++
		}
		if key.Tenant != "" && entry.Value.Tenant == key.Tenant {
			ofTenant++
		}
	}
	defer func() {
		if err != nil {
			s.issued.refusedKeys.Add(1)
		}
	}()
	_, bytes, _ := s.issued.keys.Size()
	const remedy = "records of revoked and expired keys are deleted an hour after their expiry: choose shorter " +
		"lifetimes"
	switch {
	case key.Tenant != "" && ofTenant >= credentials.MaxTenantAPIKeys:
		return tooMany(rpc.ReasonTooManyAPIKeys, "tenant %s has %d keys: %s", key.Tenant, ofTenant, remedy)
	case byIssuer >= credentials.MaxIssuerAPIKeys:
		return tooMany(rpc.ReasonTooManyAPIKeys, "the caller has issued %d keys: %s", byIssuer, remedy)
	case key.Tenant != "" && ofTenants >= credentials.MaxAllTenantAPIKeys,
		len(all) >= credentials.MaxAPIKeys, bytes >= credentials.MaxAPIKeyBytes:
		return tooMany(rpc.ReasonTooManyAPIKeys, "the platform stores no further key: %s", remedy)
	}
	return nil
}

// revoke revokes a key that is the caller's to revoke.
func (s apiKeyService) revoke(
	ctx context.Context, id, reason string, owned func(credentials.APIKey) bool,
) (*controlv1.ApiKey, error) {
	s.issued.issuing.Lock()
	defer s.issued.issuing.Unlock()
	for range maxTries {
		former, err := s.issued.keys.Get(ctx, id)
		if errors.Is(err, kv.ErrNotFound) || err == nil && !owned(former.Value) {
			return nil, connect.Errorf(connect.CodeNotFound, "there is no API key %s", id)
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		key := former.Value
		if !key.Revoked.IsZero() {
			return apiKeyMessage(key), nil
		}
		key.Revoked, key.RevokedBy, key.Reason = time.Now().UTC(), caller(ctx), credentials.Mask(reason)
		stored, err := s.issued.keys.Put(ctx, id, key, former.Revision)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		s.logKey(stored.Value, key.RevokedBy, "an API key is revoked")
		return apiKeyMessage(stored.Value), nil
	}
	return nil, asConnectError(kv.ErrChanged)
}

func (s apiKeyService) logKey(k credentials.APIKey, by, message string) {
	s.log.Warn().Str("key", k.ID).Str("tenant", k.Tenant).Strs("tenants", k.Tenants).Strs("rights", k.Rights).
		Time("expires", k.Expires).Str("by", by).Str("reason", k.Reason).Msg(message)
}

func apiKeyMessage(k credentials.APIKey) *controlv1.ApiKey {
	out := &controlv1.ApiKey{
		Id:          k.ID,
		DisplayName: k.Name,
		TenantId:    k.Tenant,
		Tenants:     k.Tenants,
		Rights:      k.Rights,
		State:       controlv1.ApiKeyState_API_KEY_STATE_ACTIVE,
		CreateTime:  timestamppb.New(k.Created),
		ExpireTime:  timestamppb.New(k.Expires),
		CreatedBy:   k.CreatedBy,
		RevokedBy:   k.RevokedBy,
		Reason:      k.Reason,
	}
	switch {
	case !k.Revoked.IsZero():
		out.State, out.RevokeTime = controlv1.ApiKeyState_API_KEY_STATE_REVOKED, timestamppb.New(k.Revoked)
	case time.Now().After(k.Expires):
		out.State = controlv1.ApiKeyState_API_KEY_STATE_EXPIRED
	}
	return out
}
