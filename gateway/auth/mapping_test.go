package auth_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/oidctest"
)

// documented returns the mappings of docs/secure.md, by the names of their issuers.
func documented(t *testing.T) map[string]auth.MappingConfig {
	t.Helper()
	text, err := os.ReadFile("../../docs/secure.md")
	if err != nil {
		t.Fatal(err)
	}
	mappings := map[string]auth.MappingConfig{}
	for _, block := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		var issuers []struct {
			Name   string
			Claims auth.MappingConfig
		}
		if yaml.Unmarshal([]byte(block), &issuers) != nil {
			continue // not a list of issuers
		}
		for _, issuer := range issuers {
			mappings[issuer.Name] = issuer.Claims
		}
	}
	return mappings
}

// Tokens as the providers issue them, and what the documented mappings make of them.
func TestMapping_DocumentedOnesFitTheProvidersTokens(t *testing.T) {
	mappings := documented(t)
	provider := oidctest.Start(t, "/")
	base := of(t, "", provider)
	for _, tc := range []struct {
		provider, name  string
		claims          map[string]any
		subject         string // "": refused
		tenants, rights []string
	}{
		{
			"keycloak", "a user with realm roles, client roles and groups", map[string]any{
				"jti": "onrtac:5cc5", "aud": []string{"headgate", "account"},
				"sub": "1d4d5c6e-8f3a-4f19-a9f0-3c1cf3a8f2b7", "typ": "Bearer", "azp": "ui",
				"sid": "5f", "acr": "1", "scope": "openid profile", "preferred_username": "ada", "email_verified": true,
				"realm_access": map[string]any{
					"roles": []string{"offline_access", "default-roles-acme", "uma_authorization", "query.read"},
				},
				"resource_access": map[string]any{
					"headgate": map[string]any{"roles": []string{"command.submit:transfer.request", "viewer"}},
					"account":  map[string]any{"roles": []string{"fleet.admin"}},
				},
				"groups": []string{"/acme", "/globex/staff", "/Not A Tenant"},
			},
			"1d4d5c6e-8f3a-4f19-a9f0-3c1cf3a8f2b7",
			[]string{"acme", "globex"}, []string{"query.read", "command.submit:transfer.request"},
		},
		{
			"keycloak", "a service account without roles",
			map[string]any{"aud": "headgate", "sub": "svc", "azp": "job", "clientHost": "10.0.0.1"},
			"svc", nil, nil,
		},
		{
			"auth0", "a user of an organization", map[string]any{
				"sub": "auth0|507f1f77bcf86cd799439020",
				"aud": []string{"headgate", "https://acme.eu.auth0.com/userinfo"}, "azp": "my_client_id",
				"scope":  "openid profile fleet.admin",
				"org_id": "org_9ybsU1dN2dKfDkBi", "org_name": "acme",
				"permissions": []string{"query.read", "read:reports"},
			},
			"auth0|507f1f77bcf86cd799439020", []string{"acme"}, []string{"query.read"},
		},
		{
			"auth0", "an application",
			map[string]any{
				"sub": "my_client_id@clients", "aud": "headgate", "gty": "client-credentials",
				"permissions": []string{"command.submit"},
			},
			"my_client_id@clients", nil, []string{"command.submit"},
		},
		{
			"entra", "a user", map[string]any{
				"ver": "2.0", "aud": "headgate", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
				"sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
				"roles": []string{"query.read", "Reader"}, "scp": "query.read aggregate.read access_as_user",
				"azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "preferred_username": "ada@acme.example",
			},
			"690222be-ff1a-4d56-abd1-7e4f7d38e474", []string{"72f988bf-86f1-41af-91ab-2d7cd011db47"},
			[]string{"query.read", "aggregate.read"},
		},
		{
			"entra", "an application", map[string]any{
				"ver": "2.0", "aud": "headgate", "oid": "9e8b", "sub": "9e8b",
				"tid": "72f988bf-86f1-41af-91ab-2d7cd011db47", "idtyp": "app", "roles": []string{"command.submit"},
			},
			"9e8b", []string{"72f988bf-86f1-41af-91ab-2d7cd011db47"}, []string{"command.submit"},
		},
		{
			"cognito", "a user's access token, which has no aud", map[string]any{
				"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": []string{"acme", "clerks", "Admins"},
				"client_id": "headgate", "token_use": "access",
				"scope": "aws.cognito.signin.user.admin headgate/query.read", "username": "ada",
			},
			"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", []string{"acme"},
			[]string{"command.submit:transfer.request", "query.read"},
		},
		{
			"cognito", "a user's ID token", map[string]any{
				"sub": "aaaaaaaa", "aud": "headgate", "token_use": "id", "cognito:groups": []string{"acme"},
				"cognito:username": "ada",
			}, "", nil, nil,
		},
		{
			"cognito", "another application's token",
			map[string]any{"sub": "a", "client_id": "other", "token_use": "access"}, "", nil, nil,
		},
		{
			"google", "a user of a known domain", map[string]any{
				"azp": "headgate", "aud": "headgate", "sub": "110169484474386276334", "hd": "acme.example",
				"email": "ada@acme.example", "email_verified": true,
			}, "ada@acme.example", []string{"acme"}, []string{"query.read", "command.submit"},
		},
		{
			"google", "a user of another domain", map[string]any{
				"aud": "headgate", "sub": "1", "hd": "evil.example", "email": "eve@evil.example",
				"email_verified": true,
			}, "eve@evil.example", nil, nil,
		},
		{
			"google", "a consumer's account", map[string]any{
				"aud": "headgate", "sub": "1", "email": "eve@gmail.com", "email_verified": true,
			}, "eve@gmail.com", nil, nil,
		},
		{
			"google", "an address that is not verified", map[string]any{
				"aud": "headgate", "sub": "1", "hd": "acme.example", "email": "ada@acme.example",
				"email_verified": false,
			}, "", nil, nil,
		},
		{
			"kubernetes", "a service account", map[string]any{
				"aud": []string{"headgate"}, "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a", "nbf": time.Now().Unix(),
				"sub": "system:serviceaccount:acme:billing",
				"kubernetes.io": map[string]any{
					"namespace": "acme", "node": map[string]any{"name": "n1", "uid": "58456cb0"},
					"pod":            map[string]any{"name": "billing-1", "uid": "778a530c"},
					"serviceaccount": map[string]any{"name": "billing", "uid": "a087d5a0"}, "warnafter": 1700081169,
				},
			}, "system:serviceaccount:acme:billing", []string{"acme"}, []string{"command.submit", "query.read"},
		},
		{
			"kubernetes", "a service account without rights", map[string]any{
				"aud": []string{"headgate"}, "sub": "system:serviceaccount:acme:default",
				"kubernetes.io": map[string]any{
					"namespace": "acme", "serviceaccount": map[string]any{"name": "default"},
				},
			}, "system:serviceaccount:acme:default", []string{"acme"}, nil,
		},
	} {
		t.Run(tc.provider+", "+tc.name, func(t *testing.T) {
			if mappings[tc.provider] == (auth.MappingConfig{}) {
				t.Fatal("no mapping is documented")
			}
			mapping, err := auth.NewMapping(mappings[tc.provider])
			if err != nil {
				t.Fatal(err)
			}
			config := base
			config.Audiences, config.Mapping = []string{"headgate"}, mapping
			p, err := newVerifier(t, config).Authenticate(t.Context(), time.Now(), bearer(provider.Token(tc.claims)))
			if tc.subject == "" {
				if !errors.Is(err, auth.ErrBadToken) {
					t.Errorf("%v, %v", p, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var tenants, rights []string
			for _, tenant := range p.Tenants {
				tenants = append(tenants, tenant.String())
			}
			for _, right := range p.Rights {
				rights = append(rights, right.String())
			}
			slices.Sort(rights)
			slices.Sort(tc.rights)
			if p.Subject != tc.subject || p.AnyTenant || !slices.Equal(tenants, tc.tenants) ||
				!slices.Equal(slices.Compact(rights), tc.rights) {
				t.Errorf("%q, %v, %v", p.Subject, tenants, rights)
			}
		})
	}
}

func TestMapping_IsCheckedAtStart(t *testing.T) {
	for _, tc := range []struct {
		config auth.MappingConfig
		want   string
	}{
		{
			auth.MappingConfig{Rights: "claimz.roles"},
			"claims.rights: line 1, column 1 of the expression: undeclared reference to 'claimz'",
		},
		{
			auth.MappingConfig{Tenants: "['a',\n 1 + 'b']"},
			"claims.tenants: line 2, column 4 of the expression: found no matching overload",
		},
		{auth.MappingConfig{Subject: "[claims.sub]"}, "claims.subject: the expression yields list(dyn), want string"},
		{
			auth.MappingConfig{Rights: "claims.?y"},
			"claims.rights: the expression yields optional_type(dyn), want list(string)",
		},
		{auth.MappingConfig{Rights: "'query.read'"}, "claims.rights: the expression yields string, want list(string)"},
		{auth.MappingConfig{Tenants: "[1]"}, "claims.tenants: the expression yields list(int), want list(string)"},
		{auth.MappingConfig{Subject: "claims.sub +"}, "claims.subject: line 1"},
		{auth.MappingConfig{Rights: "rights(claims.a, 1)"}, "found no matching overload for 'rights'"},
		{auth.MappingConfig{Rights: "claims.a.filter(x, x.matches(claims.b))"}, "constant regular expression"},
		{auth.MappingConfig{Rights: "claims.a.filter(x, x.matches('('))"}, "the expression is invalid"},
		{auth.MappingConfig{Subject: "'" + strings.Repeat("x", 9000) + "'"}, "at most 8192 are allowed"},
		{
			auth.MappingConfig{Subject: strings.Repeat("(", 2000) + "'x'" + strings.Repeat(")", 2000)},
			"claims.subject: ",
		},
	} {
		if _, err := auth.NewMapping(tc.config); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %q", tc.config, err, tc.want)
		}
	}
	if mapping, err := auth.NewMapping(auth.MappingConfig{}); mapping != nil || err != nil {
		t.Errorf("%v, %v", mapping, err)
	}
}

// A mapping that fails refuses the token, with a reason that has no values of claims.
func TestMapping_FailureRefusesTheTokenAndLeaksNoClaims(t *testing.T) {
	const secret = "s3cret"
	provider := oidctest.Start(t, "/")
	base := of(t, "", provider)
	many := make([]string, 1500)
	for i := range many {
		many[i] = fmt.Sprintf("g%d", i)
	}
	for _, tc := range []struct {
		config auth.MappingConfig
		claims map[string]any
		want   string
	}{
		{auth.MappingConfig{Rights: "claims.roles"}, nil, "claims.rights: the token has no claim roles"},
		{auth.MappingConfig{Rights: "claims[claims.x]"}, nil, "claims.rights: the token lacks a claim"},
		{auth.MappingConfig{Rights: "claims.x"}, nil, "claims.rights: it yields a value of type string"},
		{auth.MappingConfig{Rights: "[claims.x, 1]"}, nil, "a list with a member that is not a string"},
		{auth.MappingConfig{Rights: "claims.?x.orValue([])"}, nil, "claims.rights: "},
		{auth.MappingConfig{Subject: "string(int(claims.x))"}, nil, "claims.subject: the evaluation has failed"},
		{
			auth.MappingConfig{Subject: "claims.n"}, map[string]any{"n": 12},
			"claims.subject: it yields a value of type int",
		},
		{auth.MappingConfig{Subject: "''"}, nil, "sub is missing"},
		{auth.MappingConfig{Rights: "[claims.x]"}, nil, "no name of a tenant, or no right"},
		{auth.MappingConfig{Tenants: "[claims.x + ' ']"}, nil, "no name of a tenant, or no right"},
		{auth.MappingConfig{Rights: "rights(claims.x)"}, nil, "of another type"},
		{auth.MappingConfig{Audience: "claims.x"}, nil, "wrong audience"},
		{
			auth.MappingConfig{Rights: "claims.g.filter(a, claims.g.exists(b, claims.g.exists(c, a + b == c)))"},
			map[string]any{"g": many}, "costs more than 100000 units",
		},
		{
			auth.MappingConfig{Rights: "claims.g.filter(a, a.matches('(a|b|g.*)*[0-9]+(x|y)?$'))"},
			map[string]any{"g": many[:1400]}, "claims.rights: ",
		},
		{auth.MappingConfig{Rights: "claims.g.map(a, claims.g)"}, map[string]any{"g": many}, "claims.rights: "},
		{
			auth.MappingConfig{Subject: "claims.g.map(a, claims.long)[0] + claims.long + claims.long"},
			map[string]any{"g": many[:9], "long": strings.Repeat("x", 4000)}, "more than 255",
		},
		{
			auth.MappingConfig{Rights: "lookup(claims.g, {'g1': ['query.read']}) + claims.g"},
			map[string]any{"g": many}, "more than 1024 strings",
		},
	} {
		mapping, err := auth.NewMapping(tc.config)
		if err != nil {
			t.Errorf("%v: %v", tc.config, err)
			continue
		}
		config := base
		config.Mapping = mapping
		verifier := newVerifier(t, config)
		claims := claimsOf(tc.claims)
		claims["x"] = secret
		token := bearer(provider.Token(claims))
		for range 2 { // the second time it is known
			p, err := verifier.Authenticate(t.Context(), time.Now(), token)
			if !errors.Is(err, auth.ErrBadToken) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v: %v, %v; want %q", tc.config, p, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) && tc.config.Audience == "" {
				t.Errorf("%v: the reason contains the claim: %v", tc.config, err)
			}
			if err != nil && auth.Public(err).Error() != "the token is invalid" {
				t.Errorf("the caller learns %q", auth.Public(err))
			}
		}
	}
}
