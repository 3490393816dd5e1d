package node

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// writeSettings writes a file of settings.
func writeSettings(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "headgate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDev_SettingsOfTheFileTakeEffect(t *testing.T) {
	d := startDevWith(t, DevConfig{
		Data: t.TempDir(),
		Config: writeSettings(t, `
tenants: [umbrella]
gateway:
  origins: ["https://app.example.com"]
  ui: false
`),
		Listen:           loopback,
		GRPCListen:       loopback,
		AdminListen:      loopback,
		AggregateListen:  loopback,
		ProjectionListen: loopback,
		ControlListen:    loopback,
		RunnerListen:     loopback,
		LazySync:         true,
		LogLevel:         "error",
	})
	if len(d.tenants) != 1 || d.tenants[0].String() != "umbrella" {
		t.Errorf("tenants %v", d.tenants)
	}
	preflight := func(origin string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions,
			d.edge.gateway.URL()+"/v1/query/wallets", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", http.MethodPost)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.Header.Get("Access-Control-Allow-Origin")
	}
	if got := preflight("https://app.example.com"); got != "https://app.example.com" {
		t.Errorf("response to the configured origin: %q", got)
	}
	if got := preflight("https://other.example.com"); got != "" {
		t.Errorf("response to another origin: %q", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.edge.gateway.URL()+"/ui/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("/ui/ is %d with ui: false", res.StatusCode)
	}
	var announced strings.Builder
	if err := d.announce(&announced, 0); err != nil {
		t.Fatal(err)
	}
	if text := announced.String(); strings.Contains(text, "/ui/") ||
		!strings.Contains(text, "\n  gRPC alone  127.0.0.1:") || !strings.Contains(text, "export UMBRELLA=") {
		t.Errorf("announced:\n%s", text)
	}
	if text := announced.String(); strings.Contains(text, "wallet") != d.demo() {
		t.Errorf("the examples are of another model than the platform's:\n%s", text)
	}
	d.refuseForeignHosts(t)
}

// refuseForeignHosts checks that a page of another name whose address becomes this machine's calls no service, and
// reads nothing of operators.
func (d *devPlatform) refuseForeignHosts(t *testing.T) {
	t.Helper()
	urls := []string{d.edge.gateway.AdminURL() + "/nodes"}
	for _, s := range []*service{d.aggregate, d.projection, d.runner, d.control} {
		urls = append(urls, s.server.URL()+"/health", s.server.URL()+"/projection.gateway.v1.QueryService/Query")
	}
	for _, url := range urls {
		for host, refused := range map[string]bool{
			"rebind.example.com": true, "localhost": false, "127.0.0.1:1": false,
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got := res.StatusCode == http.StatusMisdirectedRequest; got != refused {
				t.Errorf("%s of %s: %d", url, host, res.StatusCode)
			}
		}
	}
}

func TestDev_FlagsOverrideTheFile(t *testing.T) {
	path := writeSettings(t, `
tenants: [umbrella]
log: info
gateway:
  server: {listen: 127.0.0.1:1111, max_connections: 77}
  grpc: ""
  origins: ["https://app.example.com"]
  proxies: {trusted: [10.0.0.0/8], header: forwarded}
  nodes: [{id: mine, kind: orders, endpoint: "127.0.0.1:7"}]
runner: {webhooks: {allow: [hooks.example.com], private: false}}
tracing: {endpoint: http://127.0.0.1:4317, share: 0.5}
`)
	file, err := devSettings(t.Context(), &DevConfig{Config: path})
	if err != nil {
		t.Fatal(err)
	}
	flags, err := devSettings(t.Context(), &DevConfig{
		Config:   path,
		Tenants:  []string{"acme"},
		Listen:   "127.0.0.1:2222",
		Origin:   []string{"https://flag.example.com"},
		Proxy:    []string{"192.168.0.0/16"},
		Webhook:  []string{"localhost"},
		Node:     []string{"orders=127.0.0.1:8"},
		Reflect:  true,
		OTLP:     "http://127.0.0.1:4318",
		LogLevel: "debug",
	})
	if err != nil {
		t.Fatal(err)
	}
	none, err := devSettings(t.Context(), &DevConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what             string
		of               func(*settings) any
		none, file, flag string
	}{
		{"tenants", func(s *settings) any { return s.Tenants }, "[acme globex]", "[umbrella]", "[acme]"},
		{"log", func(s *settings) any { return s.Log }, "warn", "info", "debug"},
		{
			"listen", func(s *settings) any { return s.Gateway.Server.Addr }, "127.0.0.1:8080", "127.0.0.1:1111",
			"127.0.0.1:2222",
		},
		{"connections", func(s *settings) any { return s.Gateway.Server.MaxConnections }, "16384", "77", "77"},
		{"grpc", func(s *settings) any { return s.Gateway.GRPC }, "127.0.0.1:8084", "", ""},
		{
			"origins", func(s *settings) any { return s.Gateway.origins() }, "[]", "[{https://app.example.com [] []}]",
			"[{https://flag.example.com [] []}]",
		},
		{
			"proxies", func(s *settings) any { return s.Gateway.Proxies }, "{[] x-forwarded-for}",
			"{[10.0.0.0/8] forwarded}", "{[192.168.0.0/16] forwarded}",
		},
		{
			"nodes", func(s *settings) any { return s.Gateway.Nodes }, "[]", "[{mine orders 127.0.0.1:7 false}]",
			"[{orders-extra-1 orders 127.0.0.1:8 true}]",
		},
		{
			"webhooks", func(s *settings) any { return s.Runner.Webhooks.Allow }, "[]", "[hooks.example.com]",
			"[localhost]",
		},
		{"private", func(s *settings) any { return s.Runner.Webhooks.Private }, "true", "false", "false"},
		{"plain", func(s *settings) any { return s.Runner.Webhooks.Plain }, "true", "true", "true"},
		{
			"tracing", func(s *settings) any { return s.Tracing }, "{ map[] 1}", "{http://127.0.0.1:4317 map[] 0.5}",
			"{http://127.0.0.1:4318 map[] 0.5}",
		},
	} {
		for i, want := range []string{c.none, c.file, c.flag} {
			if got := fmt.Sprint(c.of([]*settings{none, file, flags}[i])); got != want {
				t.Errorf("%s, source %d: %s, want %s", c.what, i, got, want)
			}
		}
	}
}

func TestDev_RefusesSettingsWithTheirLines(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"tenants: [acme]\ngateway:\n  max_strems: 3\n", `:3: there is no setting "max_strems" here`},
		{"gateway:\n  tenant_share: 2\n", ":2: gateway.tenant_share: is 2"},
		{"tenants: []\n", ":1: tenants: no tenant is configured"},
		{"log: loud\n", `:1: log: is "loud"`},
		{"\nnats: {url: nats://127.0.0.1:4222}\n", ":2: nats.url: dev does not take it: dev runs its own NATS server"},
		{"nats:\n  synced: false\n", ":2: nats.synced: dev does not take it"},
		{"nats:\n  tls: {ca: ca.pem}\n", ":2: nats.tls.ca: dev does not take it"},
		{"callers: {gateway: [edge.example.com]}\n", ":1: callers.gateway: dev does not take it"},
		{"gateway:\n  auth:\n    issuer: https://id.example.com\n", ":3: gateway.auth.issuer: dev does not take it"},
		{"gateway:\n  platform_services: false\n", ":2: gateway.platform_services: dev does not take false"},
		{"gateway: {tls: {cert: a, key: b}}\n", ":1: gateway.tls.cert: dev does not take it"},
		{"projection: {postgres: postgres://db/views}\n", ":1: projection.postgres: dev does not take it"},
		{"x: &x {id: one}\n", `:1: there is no setting "x" here`},
		{"aggregate:\n  node: &n {id: one}\nrunner:\n  node: *n\n", ":4: runner.node.id: dev does not take it"},
		{"aggregate:\n  node: &n {id: one}\ncontrol:\n  node: {<<: *n}\n", ":4: control.node.id: dev does not take it"},
		{"runner:\n  credential: runner.token\n", ":2: runner.credential: dev does not take it"},
		{
			"gateway:\n  placements: [{tenant: acme, kind: projection, node: other}]\n",
			`gateway.nodes: route: tenant acme is placed on "other"`,
		},
		{"gateway:\n  nodes: [{id: runner-1, kind: runner, endpoint: \"127.0.0.1:1\"}]\n", ":2: gateway.nodes: "},
	} {
		err := Dev(t.Context(), DevConfig{Data: t.TempDir(), Config: writeSettings(t, c.text)}, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// An empty value means off, so that dev takes a file that names what it does not use without a value.
func TestDev_TakesEmptySettings(t *testing.T) {
	path := writeSettings(
		t,
		"nats: {nkey: \"\", tls: {cert: \"\"}}\ncallers: {gateway: [], control: []}\ngateway: {tls: {cert: \"\", "+
			"key: \"\", ca: \"\"}, node: {id: \"\"}}\nrunner: {credential: }\n",
	)
	if _, err := devSettings(t.Context(), &DevConfig{Config: path}); err != nil {
		t.Error(err)
	}
}

// Each refused setting is one that exists.
func TestDev_RefusalsNameSettings(t *testing.T) {
	known := keys(reflect.TypeFor[settings](), "")
	for _, refusal := range devRefusals {
		if !slices.Contains(known, refusal.setting) {
			t.Errorf("missing setting %s", refusal.setting)
		}
	}
}
