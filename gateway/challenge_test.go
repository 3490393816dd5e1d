package gateway_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/oidctest"
)

// Every denial of a credential is UNAUTHENTICATED with a challenge (RFC 6750 §3), in all protocols; the audit record
// and the caller's subject name the issuer.
func TestAuthenticate_DenialsHaveAChallenge(t *testing.T) {
	provider := oidctest.Start(t, "/")
	e := start(t, func(config *gateway.Config) {
		ring, err := auth.NewKeyRing(t.Context(),
			auth.KeyRingConfig{Source: auth.Discovery{Issuer: provider.URL}.Source(), Foreign: true})
		if err != nil {
			t.Fatal(err)
		}
		mapping, err := auth.NewMapping(auth.MappingConfig{Rights: "claims.realm_access.roles"})
		if err != nil {
			t.Fatal(err)
		}
		config.Auth.Issuers = append(config.Auth.Issuers, auth.IssuerConfig{
			Issuer:    provider.URL,
			Name:      "corp",
			Audiences: []string{"headgate"},
			Keys:      ring,
			Mapping:   mapping,
		})
	})
	audited := e.records(t)
	claims := map[string]any{"aud": "headgate", "sub": "ada", "tenants": []string{"acme"}, "note": "s3cret"}
	unmapped := "Bearer " + provider.Token(claims)
	claims["realm_access"] = map[string]any{"roles": []string{"query.read"}}
	mapped := "Bearer " + provider.Token(claims)
	claims["exp"] = time.Now().Add(-time.Hour).Unix()
	const invalid = `Bearer error="invalid_token"`
	for _, tc := range []struct{ name, credential, challenge, reason string }{
		{"none", "", "Bearer", "NO_CREDENTIAL: "},
		{"other scheme", "Basic YTpi", "Bearer", "NO_CREDENTIAL: "},
		{"junk", "Bearer x", invalid, "BAD_CREDENTIAL: "},
		{"expired", "Bearer " + provider.Token(claims), invalid, "EXPIRED_CREDENTIAL: "},
		{"unmapped claims", unmapped, invalid, "claims.rights: the token has no claim realm_access"},
	} {
		for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb"} {
			ctx := bearing(t, tc.credential)
			_, err := queriesconnect.NewQueryServiceClient(e.client(protocol)).Query(ctx,
				&projectionv1.QueryRequest{TenantId: "acme", View: "v"})
			info, _ := connect.CallInfoForClientContext(ctx)
			got := info.ResponseHeader().Get("www-authenticate") + info.ResponseTrailer().Get("www-authenticate")
			if connect.CodeOf(err) != connect.CodeUnauthenticated || got != tc.challenge ||
				strings.Contains(err.Error(), "claims") {
				t.Errorf("%s over %s: %v, challenge %q", tc.name, protocol, err, got)
			}
			if record, _ := audited.next(t); !strings.Contains(record.Reason, tc.reason) ||
				strings.Contains(record.Reason, "s3cret") {
				t.Errorf("%s over %s: audit record %+v", tc.name, protocol, record)
			}
		}
		for _, path := range []string{
			"/v1/query/v", "/openapi.json", "/ready?tenant=acme", "/projection.gateway.v1.QueryService/Query",
		} {
			method, body := http.MethodGet, ""
			if strings.Contains(path, "uery") {
				method, body = http.MethodPost, "{}"
			}
			status, challenge := e.challenged(t, method, path, body, tc.credential)
			if status != http.StatusUnauthorized || len(challenge) != 1 || challenge[0] != tc.challenge {
				t.Errorf("%s on %s: %d, %q", tc.name, path, status, challenge)
			}
			if !strings.HasPrefix(path, "/ready") {
				audited.next(t)
			}
		}
	}
	if _, err := queriesconnect.NewQueryServiceClient(e.client("grpc")).Query(
		bearing(t, mapped), &projectionv1.QueryRequest{TenantId: "acme", View: "v"},
	); err != nil {
		t.Error(err)
	}
	if _, err := queriesconnect.NewQueryServiceClient(e.client("grpc")).Query(
		bearing(t, mapped), &projectionv1.QueryRequest{TenantId: "globex", View: "v"},
	); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Error(err)
	}
	if record, _ := audited.next(t); record.Principal != "corp:ada" {
		t.Errorf("audit record %+v", record)
	}
}

// challenged sends a request and returns its challenges.
func (e *edge) challenged(t *testing.T, method, path, body, credential string) (status int, challenge []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, e.url+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if credential != "" {
		req.Header.Set("Authorization", credential)
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Values("Www-Authenticate")
}
