package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/gateway/auth"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/credentials"
)

const (
	revocationService = "control.v1.RevocationService."
	apiKeyService     = "control.v1.ApiKeyService."
)

// tokenOf returns a token of a subject.
func (d *devPlatform) tokenOf(t *testing.T, subject, tenants string, rights ...string) string {
	t.Helper()
	principal, err := auth.NewPrincipal(subject, strings.Split(tenants, ","), rights)
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.issuer.Issue(principal, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// with returns the metadata of a credential.
func with(credential string, more ...string) []string {
	return append([]string{"authorization", "Bearer " + credential}, more...)
}

// controlKnows waits until control knows the nodes that serve the tenants of credentials.
func (d *devPlatform) controlKnows(t *testing.T, credentials ...[]string) {
	t.Helper()
	for _, header := range credentials {
		eventually(t, "control knows the tenant's nodes", func() bool {
			_, err := d.call(t, "gateway", method(t, revocationService+"ListTenantRevocations"),
				&controlv1.ListTenantRevocationsRequest{}, header...)
			return err == nil
		})
	}
}

// watch opens a stream of acme's view by a credential, and returns a function that waits for its end.
func (d *devPlatform) watch(t *testing.T, credential string) (ended func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(
		metadata.AppendToOutgoingContext(t.Context(), with(credential, "x-tenant-id", "acme")...), time.Minute,
	)
	t.Cleanup(cancel)
	m := method(t, "projection.gateway.v1.QueryService.Watch")
	stream, err := d.conns["gateway"].NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, procedureOf(m))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&projectionv1.WatchRequest{View: "notes"}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&projectionv1.WatchResponse{}); err != nil {
		t.Fatal(err)
	}
	return func() error {
		for {
			if err := stream.RecvMsg(&projectionv1.WatchResponse{}); err != nil {
				return err
			}
		}
	}
}

// Keys that control issues have no right or tenant that their issuer lacks, are listed and revoked by their own
// tenant's administrators and by operators, and end with their revocation, streams included.
func TestAPIKeys_AreIssuedAndRevokedThroughTheGateway(t *testing.T) {
	d := startContract(t)
	operator := d.token(t, "*")
	admins := map[string][]string{}
	for _, tenant := range []string{"acme", "globex"} {
		admins[tenant] = with(d.tokenOf(t, tenant+"-admin", tenant, "key.admin", "credential.read", "query.read",
			"command.submit:note"))
	}
	create := method(t, apiKeyService+"CreateTenantApiKey")
	query := method(t, "projection.gateway.v1.QueryService.Query")
	d.note(t, "acme", 1)
	refused := func(what string, want codes.Code, err error) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	key := func(rights ...string) *controlv1.CreateTenantApiKeyRequest {
		return &controlv1.CreateTenantApiKeyRequest{DisplayName: "reporting", Rights: rights}
	}
	d.controlKnows(t, admins["acme"], admins["globex"])
	res := d.mustCall(t, "gateway", create, key("query.read:notes", "command.submit:note.put"),
		admins["acme"]...).(*controlv1.CreateTenantApiKeyResponse)
	id, secret := res.GetApiKey().GetId(), res.GetSecret()
	lifetime := res.GetApiKey().GetExpireTime().AsTime().Sub(res.GetApiKey().GetCreateTime().AsTime())
	if lifetime != credentials.DefaultKeyLifetime || res.GetApiKey().GetCreatedBy() != "acme-admin" {
		t.Errorf("%v", res.GetApiKey())
	}
	eventually(t, "the key is accepted", func() bool {
		_, err := d.call(t, "gateway", query, &projectionv1.QueryRequest{View: "notes"}, with(secret)...)
		return err == nil
	})
	_, err := d.call(t, "gateway", query, &projectionv1.QueryRequest{View: "failing"}, with(secret)...)
	refused("another view", codes.PermissionDenied, err)
	_, err = d.call(t, "gateway", query, &projectionv1.QueryRequest{View: "notes"},
		with(secret, "x-tenant-id", "globex")...)
	refused("another tenant", codes.PermissionDenied, err)

	for what, right := range map[string]string{
		"a right that the issuer lacks": "fleet.read",
		"a wider right":                 "command.submit",
		"a right for another aggregate": "command.submit:notes",
		"an internal right":             "command.internal:note",
	} {
		_, err := d.call(t, "gateway", create, key("query.read", right), admins["acme"]...)
		refused(what, codes.PermissionDenied, err)
		_, err = d.call(t, "gateway", create, key(right),
			append([]string{"x-headgate-rights", right, "X-Headgate-Rights", "key.admin " + right},
				admins["acme"]...)...)
		refused(what+", which a header claims", codes.PermissionDenied, err)
	}
	_, err = d.call(t, "gateway", create, key("key.admin"), admins["acme"]...)
	refused("the right to issue keys", codes.InvalidArgument, err)
	_, err = d.call(t, "gateway", create, key("query.read:a*b"), admins["acme"]...)
	refused("a malformed right", codes.InvalidArgument, err)
	_, err = d.call(t, "gateway", create, key("query.read", "query.read"), admins["acme"]...)
	refused("a right twice", codes.InvalidArgument, err)
	for _, name := range []string{"a\x00", "a\x1b[31m", "a\u202eb", "a\nb"} {
		_, err = d.call(t, "gateway", create, &controlv1.CreateTenantApiKeyRequest{
			DisplayName: name,
			Rights:      []string{"query.read"},
		}, admins["acme"]...)
		refused(fmt.Sprintf("the name %q", name), codes.InvalidArgument, err)
	}
	_, err = d.call(t, "gateway", create, &controlv1.CreateTenantApiKeyRequest{
		TenantId:    "globex",
		DisplayName: "x",
		Rights:      []string{"query.read"},
	}, admins["acme"]...)
	refused("another tenant's key", codes.PermissionDenied, err)
	_, err = d.call(t, "gateway", method(t, apiKeyService+"CreateApiKey"), &controlv1.CreateApiKeyRequest{
		DisplayName: "x",
		Tenants:     []string{"acme"},
		Rights:      []string{"query.read"},
	}, admins["acme"]...)
	refused("the platform's method", codes.PermissionDenied, err)
	_, err = d.call(t, "control", create, key("query.read"), "x-tenant-id", "acme")
	refused("a direct call, without the rights that a gateway states", codes.PermissionDenied, err)
	_, err = d.call(t, "gateway", create, key("query.read"), with(secret)...)
	refused("a key that issues keys", codes.PermissionDenied, err)

	// Only the key's own tenant's administrators see and revoke it, and operators.
	list := d.mustCall(t, "gateway", method(t, apiKeyService+"ListTenantApiKeys"),
		&controlv1.ListTenantApiKeysRequest{}, admins["globex"]...).(*controlv1.ListTenantApiKeysResponse)
	if len(list.GetApiKeys()) > 0 {
		t.Errorf("globex sees %v", list)
	}
	ended := d.watch(t, secret)
	revoke := method(t, apiKeyService+"RevokeTenantApiKey")
	_, err = d.call(t, "gateway", revoke, &controlv1.RevokeTenantApiKeyRequest{Id: id, Reason: "r"},
		admins["globex"]...)
	refused("another tenant's administrator", codes.NotFound, err)
	_, err = d.call(t, "gateway", revoke, &controlv1.RevokeTenantApiKeyRequest{Id: secret, Reason: "r"},
		admins["acme"]...)
	refused("a whole key in place of its id", codes.InvalidArgument, err)
	if text := status.Convert(err).Message(); !strings.Contains(text, "without the secret") ||
		strings.Contains(text, strings.TrimPrefix(secret, "hgk_"+id+"_")) {
		t.Errorf("the error of a whole key is %q", text)
	}
	d.mustCall(t, "gateway", revoke, &controlv1.RevokeTenantApiKeyRequest{Id: id, Reason: "leaked"}, admins["acme"]...)
	refused("the stream of a revoked key", codes.Unauthenticated, ended())
	_, err = d.call(t, "gateway", query, &projectionv1.QueryRequest{View: "notes"}, with(secret)...)
	refused("a revoked key", codes.Unauthenticated, err)
	all := d.mustCall(t, "gateway", method(t, apiKeyService+"ListApiKeys"),
		&controlv1.ListApiKeysRequest{CreatedBy: "acme-admin"}, operator...).(*controlv1.ListApiKeysResponse)
	if keys := all.GetApiKeys(); len(keys) != 1 || keys[0].GetState() != controlv1.ApiKeyState_API_KEY_STATE_REVOKED ||
		keys[0].GetRevokedBy() != "acme-admin" || keys[0].GetReason() != "leaked" {
		t.Errorf("%v", all)
	}
	if text := strings.TrimPrefix(secret, "hgk_"+id+"_"); strings.Contains(all.String(), text) {
		t.Error("the list has the secret")
	}
}

// Tokens are revoked by id, subject and issuer through control. A tenant's administrators revoke only those of
// principals that act for their tenant alone.
func TestRevocations_ThroughControlEndTokensAndStreams(t *testing.T) {
	d := startContract(t)
	operator := d.token(t, "*")
	admin := with(d.tokenOf(t, "acme-admin", "acme", "token.revoke", "credential.read"))
	query := method(t, "projection.gateway.v1.QueryService.Query")
	accepted := func(token string) error {
		_, err := d.call(t, "gateway", query, &projectionv1.QueryRequest{View: "notes"},
			with(token, "x-tenant-id", "acme")...)
		return err
	}
	revoked := func(what, token string) {
		t.Helper()
		eventually(t, what, func() bool { return status.Code(accepted(token)) == codes.Unauthenticated })
	}
	d.note(t, "acme", 1)
	ada, both := d.tokenOf(t, "ada", "acme", "query.read"), d.tokenOf(t, "ada", "acme,globex", "query.read")
	adaStream, bothStream := d.watch(t, ada), d.watch(t, both)

	d.controlKnows(t, admin)
	res := d.mustCall(t, "gateway", method(t, revocationService+"RevokeTenantSubject"),
		&controlv1.RevokeTenantSubjectRequest{Subject: "ada", Reason: "r"}, admin...)
	id := res.(*controlv1.RevokeTenantSubjectResponse).GetRevocation().GetId()
	if err := adaStream(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream has ended with %v", err)
	}
	revoked("the subject's token is rejected", ada)
	if err := accepted(both); err != nil {
		t.Errorf("a token for two tenants: %v", err)
	}
	d.mustCall(t, "gateway", method(t, revocationService+"WithdrawTenantRevocation"),
		&controlv1.WithdrawTenantRevocationRequest{Id: id, Reason: "r"}, admin...)
	eventually(t, "the token is accepted again", func() bool { return accepted(ada) == nil })

	// One token, by the claims of its payload.
	var claims struct {
		Issuer  string `json:"iss"`
		ID      string `json:"jti"`
		Expires int64  `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(both, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	token := &controlv1.RevokeTokenRequest{
		Issuer:     claims.Issuer,
		TokenId:    claims.ID,
		ExpireTime: timestamppb.New(time.Unix(claims.Expires, 0)),
		Reason:     "leaked",
	}
	if _, err := d.call(t, "gateway", method(t, revocationService+"RevokeToken"), token, admin...); status.Code(err) !=
		codes.PermissionDenied {
		t.Errorf("a tenant's administrator calls the platform's method: %v", err)
	}
	d.mustCall(t, "gateway", method(t, revocationService+"RevokeToken"), token, operator...)
	if err := bothStream(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream has ended with %v", err)
	}
	revoked("the token is rejected", both)
	if err := accepted(ada); err != nil {
		t.Errorf("another token: %v", err)
	}
	list := method(t, revocationService+"ListTenantRevocations")
	mine := d.mustCall(t, "gateway", list, &controlv1.ListTenantRevocationsRequest{}, admin...)
	if got := mine.(*controlv1.ListTenantRevocationsResponse).GetRevocations(); len(got) != 1 ||
		!got[0].GetWithdrawn() {
		t.Errorf("%v", got)
	}
	platformID := credentials.Revocation{Issuer: claims.Issuer, TokenID: claims.ID}.ID()
	if _, err := d.call(t, "gateway", method(t, revocationService+"WithdrawTenantRevocation"),
		&controlv1.WithdrawTenantRevocationRequest{Id: platformID, Reason: "r"}, admin...); status.Code(err) !=
		codes.NotFound {
		t.Errorf("a tenant's administrator withdraws a revocation of the platform: %v", err)
	}
	for what, req := range map[string]proto.Message{
		"the future": &controlv1.RevokeSubjectRequest{Subject: "x",
			IssuedBefore: timestamppb.New(time.Now().Add(time.Hour))},
		"an API key": &controlv1.RevokeSubjectRequest{Subject: "key:reporting"},
		"expired": &controlv1.RevokeSubjectRequest{Subject: "x",
			ExpireTime: timestamppb.New(time.Now().Add(-2 * time.Hour))},
		"eleven years": &controlv1.RevokeSubjectRequest{Subject: "x", ExpireTime: timestamppb.New(time.Now().AddDate(11,
			0, 0))},
	} {
		req.(*controlv1.RevokeSubjectRequest).Reason = "r"
		if _, err := d.call(t, "gateway", method(t, revocationService+"RevokeSubject"), req,
			operator...); status.Code(err) !=
			codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The issuer's tokens, the operator's own among them.
	d.mustCall(t, "gateway", method(t, revocationService+"RevokeIssuer"),
		&controlv1.RevokeIssuerRequest{Issuer: claims.Issuer, Reason: "its key is stolen"}, operator...)
	revoked("the issuer's tokens are rejected", ada)
}
