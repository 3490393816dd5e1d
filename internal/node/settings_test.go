package node

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/rpc"
)

// documented reads the documented settings.
func documented(t *testing.T) *settings {
	t.Helper()
	s := &settings{}
	if _, err := config.Parse("headgate.yaml", documentedSettings, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSettings_DocumentedValuesAreDefaults(t *testing.T) {
	s := documented(t)
	listen := rpc.Config{Addr: s.Gateway.Server.Addr}.WithEdgeDefaults()
	for name, pair := range map[string][2]any{
		"gateway.server":             {s.Gateway.Server, listen},
		"gateway.upstream":           {s.Gateway.Upstream, upstream.PoolConfig{}.WithDefaults()},
		"gateway.breakers":           {s.Gateway.Breakers, breaker.Config{}.WithDefaults()},
		"gateway.probes":             {s.Gateway.Probes, probe.Config{}.WithDefaults()},
		"gateway.tenant_limits":      {s.Gateway.TenantLimits, limit.Config{}.WithDefaults()},
		"gateway.auth.leeway":        {s.Gateway.Auth.Leeway, auth.DefaultLeeway},
		"gateway.auth.keys_max_age":  {s.Gateway.Auth.KeysMaxAge, auth.DefaultKeysMaxAge},
		"gateway.auth.max_lifetime":  {s.Gateway.Auth.MaxLifetime, auth.MaxTokenLifetime},
		"gateway.max_timeout":        {s.Gateway.MaxTimeout, 30 * time.Second},
		"gateway.max_stream_timeout": {s.Gateway.MaxStreamTimeout, time.Hour},
		"gateway.max_bytes":          {s.Gateway.MaxBytes, int64(gateway.DefaultMaxBytes)},
		"gateway.tenant_share":       {s.Gateway.TenantShare, gateway.DefaultTenantShare},
		"gateway.caller_share":       {s.Gateway.CallerShare, gateway.DefaultCallerShare},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s is documented as %+v and is %+v", name, pair[0], pair[1])
		}
	}
	for name, server := range map[string]rpc.Config{
		"aggregate": s.Aggregate.Server, "projection": s.Projection.Server, "runner": s.Runner.Server,
	} {
		if want := (rpc.Config{
			Addr:       server.Addr,
			MaxStreams: rpc.DefaultServiceStreams,
		}).WithDefaults(); !reflect.DeepEqual(server, want) {
			t.Errorf("%s.server is documented as %+v and is %+v", name, server, want)
		}
	}
}

// keys returns the paths of all settings that a struct reads.
func keys(t reflect.Type, prefix string) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inner := f.Type
		switch {
		case name == "-" || f.Tag.Get("yaml") == "":
			continue
		case options == "inline":
			out = append(out, keys(inner, prefix)...)
			continue
		}
		out = append(out, prefix+name)
		if inner.Kind() == reflect.Struct {
			out = append(out, keys(inner, prefix+name+".")...)
		}
	}
	return out
}

func TestSettings_AreAllDocumented(t *testing.T) {
	have, err := config.Keys(documentedSettings)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[settings](), "") {
		if !slices.Contains(have, key) {
			t.Errorf("%s is not documented in headgate.yaml", key)
		}
	}
}

func TestSettings_ErrorsHaveLineAndReason(t *testing.T) {
	dir := t.TempDir()
	jwks := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(jwks, []byte(`{"keys":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	gatewayWith := func(lines string) string {
		return "gateway:\n  auth:\n    issuer: i\n    audience: a\n    keys: " + jwks + "\n" + lines
	}
	for name, rule := range map[string]struct {
		role       contextkit.Kind
		text, want string
	}{
		"no such setting": {
			contextkit.KindGateway, gatewayWith("  retrys: 3\n"), `f.yaml:6: there is no setting "retrys" here`,
		},
		"no issuer": {
			contextkit.KindGateway, "log: info\ngateway:\n  origins: []\n", "f.yaml:2: gateway.auth.issuer: is missing",
		},
		"no such key file": {
			contextkit.KindGateway, "gateway:\n  auth: {issuer: i, audience: a, keys: /nowhere}\n",
			"f.yaml:2: gateway.auth.keys: stat /nowhere: no such file",
		},
		"issuer over http": {
			"gateway", "gateway:\n  auth:\n    issuer: http://id.example.com\n    audience: a\n",
			"f.yaml:3: gateway.auth.issuer: the URL of id.example.com must begin with https://",
		},
		"issuer that is not a URL": {
			"gateway", "gateway:\n  auth: {issuer: i, audience: a}\n",
			"f.yaml:2: gateway.auth.keys: is missing: a JWK set",
		},
		"keys in clear text": {
			"gateway", "gateway:\n  auth: {issuer: i, audience: a, keys: \"http://id.example.com/jwks\"}\n",
			"f.yaml:2: gateway.auth.keys: the URL of id.example.com must begin with https://",
		},
		"unknown algorithm": {
			"gateway", gatewayWith("    algorithms: [HS256]\n"),
			`f.yaml:6: gateway.auth.algorithms: algorithm "HS256" is not allowed`,
		},
		"issuer without a name": {
			"gateway", gatewayWith("    issuers:\n    - {issuer: \"https://id.example.com\", audience: a}\n"),
			"f.yaml:7: gateway.auth.issuers.0.name: is missing",
		},
		"duplicate issuer": {
			"gateway",
			gatewayWith("    issuers:\n    - name: b\n      issuer: i\n      audience: a\n      keys: " + jwks + "\n"),
			`f.yaml:8: gateway.auth.issuers.0.issuer: is "i", which another issuer is too`,
		},
		"reserved issuer name": {
			"gateway",
			gatewayWith("    issuers:\n    - name: key\n      issuer: https://id.example.com\n      audience: a\n"),
			`f.yaml:7: gateway.auth.issuers.0.name: is "key", which is reserved`,
		},
		"unknown issuer setting": {
			"gateway", gatewayWith("    issuers:\n    - name: b\n      issuers: []\n"),
			`f.yaml:8: there is no setting "issuers" here`,
		},
		"invalid claim expression": {
			"gateway", gatewayWith("    claims:\n      subject: claims.sub\n      rights: claimz.roles\n"),
			"f.yaml:8: gateway.auth.claims.rights: line 1, column 1 of the expression: undeclared reference to " +
				"'claimz'",
		},
		"invalid token lifetime": {
			"gateway", gatewayWith("    max_lifetime: 20000h\n"),
			"f.yaml:6: gateway.auth.max_lifetime: is 20000h0m0s, want 1m0s to 8784h0m0s",
		},
		"negative limit": {
			contextkit.KindGateway, gatewayWith("  server:\n    max_streams: -1\n"),
			"f.yaml:7: gateway.server.max_streams: is -1, want at least 0",
		},
		"ping interval below the minimum": {
			contextkit.KindGateway, gatewayWith("  upstream: {ping_after: 1s}\n"),
			"f.yaml:6: gateway.upstream.ping_after: is 1s, want at least 10s",
		},
		"share above 1": {
			contextkit.KindGateway, gatewayWith("  breakers:\n    failures: 3\n    panic_share: 2\n"),
			"f.yaml:8: gateway.breakers.panic_share: is 2, want 0 to 1",
		},
		"node without a kind": {
			contextkit.KindGateway, gatewayWith("  nodes:\n  - {id: a, kind: b, endpoint: c}\n  - id: d\n"),
			"f.yaml:8: gateway.nodes.1: needs an id, a kind and an endpoint",
		},
		"placement on an unknown node": {
			contextkit.KindGateway, gatewayWith("  placements: [{tenant: acme, kind: runner, node: r}]\n"),
			`is placed on "r", which is not a runner node`,
		},
		"invalid tenant name": {
			contextkit.KindGateway, gatewayWith("  placements: [{tenant: ACME, kind: runner, node: r}]\n"),
			"f.yaml:6: gateway.placements.0.tenant: ",
		},
		"certificate without a key": {
			contextkit.KindGateway, gatewayWith("  tls: {cert: x}\n"),
			"f.yaml:6: gateway.tls: tls: a certificate needs its key",
		},
		"nodes without CA": {
			contextkit.KindGateway, gatewayWith("  upstream_tls: {server_name: x}\n"),
			"f.yaml:6: gateway.upstream_tls: ca is missing",
		},
		"no descriptors": {
			contextkit.KindGateway, gatewayWith("  descriptors: [" + jwks + "]\n"), "f.yaml:6: gateway.descriptors.0: ",
		},
		"no fan-out": {
			contextkit.KindGateway, gatewayWith("  probes:\n    fan_out:\n      concurrent: -4\n"),
			"f.yaml:8: gateway.probes.fan_out.concurrent: is -4",
		},
		"no level of that name": {
			contextkit.KindAggregate, "log: loud\n", `f.yaml:1: log: is "loud", want debug, info, warn or error`,
		},
		"no replicas": {
			contextkit.KindAggregate, "nats:\n  replicas: 0\n", "f.yaml:2: nats.replicas: is 0, want at least 1",
		},
		"no tenant": {contextkit.KindAggregate, "log: info\ntenants: [Acme]\n", "f.yaml:2: tenants: "},
		"no model":  {contextkit.KindProjection, "model: /nowhere.yaml\n", "/nowhere.yaml: no such file"},
		"no directory": {
			contextkit.KindProjection, "projection:\n  data: \"\"\n", "f.yaml:2: projection.data: is missing",
		},
		"no credential": {
			contextkit.KindRunner, "runner:\n  gateway: x:1\n", "f.yaml:1: runner.credential: is missing",
		},
		"no prefix": {
			contextkit.KindGateway, gatewayWith("  proxies:\n    trusted: [proxy.example.com]\n"),
			`f.yaml:7: gateway.proxies.trusted: has "proxy.example.com"`,
		},
		"every prefix": {
			contextkit.KindGateway, gatewayWith("  proxies: {trusted: [0.0.0.0/0]}\n"),
			"f.yaml:6: gateway.proxies.trusted: has \"0.0.0.0/0\", which trusts every client",
		},
		"no such header": {
			contextkit.KindGateway, gatewayWith("  proxies: {header: x-real-ip}\n"),
			`f.yaml:6: gateway.proxies.header: is "x-real-ip"`,
		},
		"wildcard origin": {
			contextkit.KindGateway, gatewayWith("  origins: [\"*\"]\n"),
			`f.yaml:6: gateway.origins: "*" is not an origin`,
		},
		"invalid origin key": {
			contextkit.KindGateway, gatewayWith("  origins:\n  - origin: https://a.example\n    header: [x]\n"),
			`f.yaml:8: there is no setting "header" here`,
		},
		"hsts without TLS": {
			contextkit.KindGateway, gatewayWith("  hsts: {max_age: 1h}\n"),
			"f.yaml:6: gateway.hsts: is only sent to clients that use TLS",
		},
		"hsts that is short": {
			contextkit.KindGateway, gatewayWith("  hsts: {max_age: 1h, include_subdomains: true, preload: true}\n"),
			"f.yaml:6: gateway.hsts: preload requires",
		},
		"two errors": {
			contextkit.KindGateway, gatewayWith("  max_concurrent: 0\n  max_timeout: -1s\n"),
			"f.yaml:6: gateway.max_concurrent: is 0, want at least 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.yaml")
			if err := os.WriteFile(path, []byte(rule.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), rule.role, path, Options{Logs: io.Discard})
			if err == nil || !strings.Contains(err.Error(), rule.want) {
				t.Errorf("%v, want %s", err, rule.want)
			}
		})
	}
}

func TestSettings_ValidOnesOfEveryRoleAreAccepted(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	file := path(
		"f.yaml",
		"gateway: {auth: {issuer: i, audience: a, keys: "+path("keys.json", "{}")+
			"}, hsts: {max_age: 1h}, proxies: {trusted: [10.0.0.0/8], header: forwarded}, "+
			"origins: [https://a.example, {origin: https://b.example, headers: [x-a], exposed: [x-b]}]}\nrunner: "+
			"{credential: "+path("key", "k")+"}\n",
	)
	for _, role := range []contextkit.Kind{
		contextkit.KindGateway, contextkit.KindAggregate, contextkit.KindProjection, contextkit.KindRunner,
	} {
		if _, err := Open(t.Context(), role, file, Options{Logs: io.Discard}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	if zerolog.GlobalLevel() != zerolog.TraceLevel {
		t.Error("checking settings changes the process")
	}
}
