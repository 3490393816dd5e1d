package node

import (
	"bytes"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/proxies"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/internal/version"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// documentedSettings has every setting with its explanation and its default.
//
//go:embed headgate.yaml
var documentedSettings []byte

// DocumentedSettings returns a settings file with every setting, its explanation and its default.
func DocumentedSettings() []byte { return bytes.Clone(documentedSettings) }

// settings are the file of 'headgate serve'.
type settings struct {
	NATS       natsSettings       `yaml:"nats"`
	Callers    callerSettings     `yaml:"callers"`
	Tenants    []string           `yaml:"tenants"`
	Model      string             `yaml:"model"`
	Log        string             `yaml:"log"`
	Tracing    tracing.Config     `yaml:"tracing"`
	Gateway    gatewaySettings    `yaml:"gateway"`
	Aggregate  aggregateSettings  `yaml:"aggregate"`
	Projection projectionSettings `yaml:"projection"`
	Runner     runnerSettings     `yaml:"runner"`
	Control    controlSettings    `yaml:"control"`

	file *config.File
}

type serviceSettings struct {
	Server rpc.Config       `yaml:"server"`
	GRPC   string           `yaml:"grpc"`
	Admin  string           `yaml:"admin"`
	TLS    tlsfiles.Files   `yaml:"tls"`
	Node   announceSettings `yaml:"node"`
}

// announceSettings configure a node's announcement.
type announceSettings struct {
	ID        string `yaml:"id"`
	Advertise string `yaml:"advertise"`
}

// identify returns the node's id: the configured one, or the kind with the endpoint as others reach it. A port that
// the system chooses results in a new id for every start.
func (a announceSettings) identify(kind, listen string) (string, error) {
	if a.ID != "" {
		return a.ID, nil
	}
	endpoint, err := a.endpoint(listen)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(endpoint, ":0") {
		return kind + "-" + contextkit.NewID(), nil
	}
	return kind + "-" + strings.Map(func(r rune) rune {
		if r == ':' || r == '[' || r == ']' || r == '%' {
			return '-'
		}
		return r
	}, endpoint), nil
}

// endpoint returns the address at which others reach a node that listens at addr.
func (a announceSettings) endpoint(addr string) (string, error) {
	if a.Advertise != "" {
		return a.Advertise, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || ip.IsUnspecified()) {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("this machine's name: %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// node returns the announcement of a node of the kind that listens at addr.
func (a announceSettings) node(kind, id, addr string) (fleet.Node, error) {
	endpoint, err := a.endpoint(addr)
	return newNode(kind, id, endpoint), err
}

// newNode returns the announcement of a node that has just started.
func newNode(kind, id, endpoint string) fleet.Node {
	return fleet.Node{
		ID:       id,
		Kind:     kind,
		Endpoint: endpoint,
		Tokens:   token.Newest,
		Started:  time.Now().UTC(),
		Version:  version.Get().Version,
	}
}

type aggregateSettings struct {
	serviceSettings `yaml:",inline"`

	Answers    response.Config `yaml:"answers"`
	CacheBytes int64           `yaml:"cache_bytes"`

	Quota fleet.StorageQuota `yaml:"quota"`
}

type projectionSettings struct {
	serviceSettings `yaml:",inline"`

	Answers  response.Config `yaml:"answers"`
	Data     string          `yaml:"data"`
	Postgres string          `yaml:"postgres"`
}

// clientTLS is tlsfiles.Files with the name that a server must have.
type clientTLS struct {
	tlsfiles.Files `yaml:",inline"`

	ServerName string `yaml:"server_name"`
}

type runnerSettings struct {
	serviceSettings `yaml:",inline"`

	Answers    response.Config `yaml:"answers"`
	Gateway    string          `yaml:"gateway"`
	Credential string          `yaml:"credential"`
	GatewayTLS clientTLS       `yaml:"gateway_tls"`
	Webhooks   webhookSettings `yaml:"webhooks"`
}

type webhookSettings struct {
	webhook.Config `yaml:",inline"`

	Secret string `yaml:"secret"`
}

// open checks the section and reads the secret.
func (w webhookSettings) open() (webhook.Config, error) {
	out := w.Config
	if err := out.Validate(); err != nil || w.Secret == "" {
		return out, err
	}
	text, err := readCredential(w.Secret)
	if err != nil {
		return out, config.Wrong("secret", "%v", err)
	}
	out.Secret = []byte(text)
	return out, nil
}

type controlSettings struct {
	serviceSettings `yaml:",inline"`

	NodesTLS clientTLS `yaml:"nodes_tls"`
}

type gatewaySettings struct {
	serviceSettings `yaml:",inline"`

	UI                bool                `yaml:"ui"`
	PlatformServices  bool                `yaml:"platform_services"`
	Proxies           proxies.Config      `yaml:"proxies"`
	HSTS              gateway.HSTS        `yaml:"hsts"`
	Origins           []originSettings    `yaml:"origins"`
	IgnoredParameters []string            `yaml:"ignored_parameters"`
	StreamKeepAlive   time.Duration       `yaml:"stream_keep_alive"`
	Descriptors       []string            `yaml:"descriptors"`
	MaxTimeout        time.Duration       `yaml:"max_timeout"`
	MaxStreamTimeout  time.Duration       `yaml:"max_stream_timeout"`
	MaxConcurrent     int                 `yaml:"max_concurrent"`
	MaxStreams        int                 `yaml:"max_streams"`
	MaxBytes          int64               `yaml:"max_bytes"`
	TenantShare       float64             `yaml:"tenant_share"`
	CallerShare       float64             `yaml:"caller_share"`
	TenantLimits      limit.Config        `yaml:"tenant_limits"`
	Auth              authSettings        `yaml:"auth"`
	Upstream          upstream.PoolConfig `yaml:"upstream"`
	UpstreamTLS       clientTLS           `yaml:"upstream_tls"`
	Breakers          breaker.Config      `yaml:"breakers"`
	Probes            probe.Config        `yaml:"probes"`
	Nodes             []nodeSettings      `yaml:"nodes"`
	Placements        []placementSettings `yaml:"placements"`
}

// originSettings are an origin, or an origin with headers.
type originSettings struct {
	Origin  string
	Headers []string
	Exposed []string
}

// UnmarshalYAML implements [yaml.Unmarshaler].
func (o *originSettings) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return node.Decode(&o.Origin)
	}
	fields := map[string]any{"origin": &o.Origin, "headers": &o.Headers, "exposed": &o.Exposed}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		field, known := fields[key.Value]
		if !known {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: field %s not found in type node.originSettings", key.Line, key.Value)}}
		}
		if err := node.Content[i+1].Decode(field); err != nil {
			return err
		}
	}
	return nil
}

// origins returns the origins whose pages may call.
func (g *gatewaySettings) origins() []gateway.Origin {
	out := make([]gateway.Origin, len(g.Origins))
	for i, origin := range g.Origins {
		out[i] = gateway.Origin(origin)
	}
	return out
}

// checkHSTS checks the policy, which is only sent to clients that use TLS.
func (g *gatewaySettings) checkHSTS() error {
	if err := g.HSTS.Validate(); err != nil {
		return config.Wrong("hsts", "%v", err)
	}
	if g.HSTS.MaxAge > 0 && g.TLS == (tlsfiles.Files{}) && len(g.Proxies.Trusted) == 0 {
		return config.Wrong("hsts", "is only sent to clients that use TLS: set tls, or proxies that serve it")
	}
	return nil
}

type authSettings struct {
	Issuer   string        `yaml:"issuer"`
	Audience string        `yaml:"audience"`
	Keys     string        `yaml:"keys"`
	APIKeys  string        `yaml:"api_keys"`
	Leeway   time.Duration `yaml:"leeway"`
	Platform []string      `yaml:"platform"`
}

type nodeSettings struct {
	ID       string `yaml:"id"`
	Kind     string `yaml:"kind"`
	Endpoint string `yaml:"endpoint"`
	Reflect  bool   `yaml:"reflect"`
}

type placementSettings struct {
	Tenant string `yaml:"tenant"`
	Kind   string `yaml:"kind"`
	Node   string `yaml:"node"`
}

// readSettings reads the file over the documented settings.
func readSettings(path string) (*settings, error) {
	s := &settings{}
	if _, err := config.Parse("headgate.yaml", documentedSettings, s); err != nil {
		return nil, fmt.Errorf("the documented settings: %w", err)
	}
	var err error
	if s.file, err = config.Read(path, s); err != nil {
		return nil, err
	}
	return s, nil
}

// common checks the settings that all roles use.
func (s *settings) common() error {
	errs := []error{config.Inside("nats", s.NATS.check()), config.Inside("tracing", s.Tracing.Validate())}
	if _, err := zerolog.ParseLevel(s.Log); err != nil || s.Log == "" {
		errs = append(errs, config.Wrong("log", "is %q, want debug, info, warn or error", s.Log))
	}
	return errors.Join(errs...)
}

// served returns the tenants that the process serves from the start.
func (s *settings) served() ([]contextkit.TenantID, error) {
	tenants, err := rpc.ParseTenants(s.Tenants)
	if err != nil {
		return nil, config.Wrong("tenants", "%v", err)
	}
	return tenants.All(), nil
}

// source returns the source of the model until one is applied.
func (s *settings) source() model.Source {
	if s.Model == "" {
		return model.Wallet
	}
	return model.File(s.Model)
}

// openModels returns the model in use and, unless it comes from a file, a function that makes the node use applied
// models until ctx ends; else nil.
func openModels(ctx context.Context, js jetstream.JetStream, file string, log zerolog.Logger) (r *rollout, follow func(context.Context) error, err error) {
	fallback := model.Wallet
	if file != "" {
		fallback = nil
	}
	platform, err := models.Open(ctx, js, fallback)
	if err != nil {
		return nil, nil, err
	}
	source := model.Source(platform.Source)
	if file != "" {
		source = model.File(file)
	}
	models, err := model.OpenPlaced(ctx, source, func(ctx context.Context, m *model.Model) (uint64, bool, error) {
		return platform.Place(ctx, m.Revision)
	})
	if err != nil {
		return nil, nil, modelError(err)
	}
	r = newRollout(models, log)
	if file != "" {
		return r, nil, nil
	}
	return r, func(ctx context.Context) error { return r.follow(ctx, js) }, nil
}

// listen returns the section's listener, under a name.
func (s serviceSettings) listen(name string, log zerolog.Logger) (rpc.Config, error) {
	out := s.Server
	out.Name, out.GRPC = name, s.GRPC
	errs := []error{config.Inside("server", out.Validate())}
	if out.Addr == "" {
		errs = append(errs, config.Wrong("server.listen", "is missing"))
	}
	if s.TLS != (tlsfiles.Files{}) {
		if s.TLS.Cert == "" {
			errs = append(errs, config.Wrong("tls.cert", "is missing: a listener with TLS needs a certificate"))
		}
		var err error
		if out.TLS, err = openTLS(s.TLS, log); err != nil {
			errs = append(errs, config.Wrong("tls", "%v", err))
		}
	}
	return out, errors.Join(errs...)
}

func openTLS(files tlsfiles.Files, log zerolog.Logger) (*tlsfiles.Material, error) {
	return tlsfiles.Open(files, func(err error) {
		log.Error().Err(err).Msg("reading certificates failed; the ones in use stay")
	})
}

// channels returns the TLS configuration of channels, nil for clear text. Each new connection uses the current
// content of the files.
func (c clientTLS) channels(log zerolog.Logger) (func() *tls.Config, error) {
	if c == (clientTLS{}) {
		return nil, nil //nolint:nilnil // nil means clear text
	}
	if c.CA == "" {
		return nil, errors.New("ca is missing: it verifies the server's certificate")
	}
	material, err := openTLS(c.Files, log)
	if err != nil {
		return nil, err
	}
	return func() *tls.Config { return material.Client(c.ServerName) }, nil
}

// verify checks the section and opens what it names, except the keys.
func (a authSettings) verify(ctx context.Context) (auth.Config, auth.Source, error) {
	out := auth.Config{Issuer: a.Issuer, Audience: a.Audience, Leeway: a.Leeway}
	var errs []error
	for _, f := range []struct{ name, value, reason string }{
		{"issuer", a.Issuer, "a token must name its issuer"},
		{"audience", a.Audience, "a token must be meant for this gateway"},
		{"keys", a.Keys, "a JWK set, as a file or a URL, verifies tokens"},
	} {
		if f.value == "" {
			errs = append(errs, config.Wrong(f.name, "is missing: %s", f.reason))
		}
	}
	errs = append(errs, config.AtLeast("leeway", a.Leeway, 0))
	source := auth.File(a.Keys)
	if isURL(a.Keys) {
		source = auth.URL(a.Keys)
	} else if a.Keys != "" {
		if _, err := os.Stat(a.Keys); err != nil {
			errs = append(errs, config.Wrong("keys", "%v", err))
		}
	}
	if a.APIKeys != "" {
		var err error
		if out.APIKeys, err = auth.OpenAPIKeys(ctx, auth.File(a.APIKeys)); err != nil {
			errs = append(errs, config.Wrong("api_keys", "%v", err))
		}
	}
	return out, source, errors.Join(errs...)
}

// isURL reports whether a source is fetched over HTTP.
func isURL(source string) bool {
	return strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://")
}

// placed returns the section's placements, which routes has checked.
func (g gatewaySettings) placed() []route.Placement {
	var out []route.Placement
	for _, p := range g.Placements {
		if tenant, err := contextkit.ParseTenantID(p.Tenant); err == nil {
			out = append(out, route.Placement{Tenant: tenant, Kind: p.Kind, Node: p.Node})
		}
	}
	return out
}

// routes returns the section's nodes and placements.
func (g gatewaySettings) routes() (*route.Table, error) {
	var (
		nodes  []route.Node
		placed []route.Placement
		errs   []error
	)
	for i, n := range g.Nodes {
		at := fmt.Sprintf("nodes.%d", i)
		if n.ID == "" || n.Kind == "" || n.Endpoint == "" {
			errs = append(errs, config.Wrong(at, "needs an id, a kind and an endpoint"))
		}
		nodes = append(nodes, route.Node{ID: n.ID, Kind: n.Kind, Endpoint: n.Endpoint, Ready: true})
	}
	for i, p := range g.Placements {
		tenant, err := contextkit.ParseTenantID(p.Tenant)
		if err != nil {
			errs = append(errs, config.Wrong(fmt.Sprintf("placements.%d.tenant", i), "%v", err))
		}
		placed = append(placed, route.Placement{Tenant: tenant, Kind: p.Kind, Node: p.Node})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	table := route.NewTable()
	if err := table.Replace(nodes, placed); err != nil {
		return nil, config.Wrong("nodes", "%v", err)
	}
	return table, nil
}

// descriptorSets reads the files of descriptors.
func descriptorSets(paths []string) ([][]byte, error) {
	sets := make([][]byte, len(paths))
	for i, path := range paths {
		var err error
		if sets[i], err = os.ReadFile(path); err != nil {
			return nil, config.Wrong(fmt.Sprintf("descriptors.%d", i), "%v", err)
		}
		if _, err := policy.NewCatalog(sets[i]); err != nil {
			return nil, config.Wrong(fmt.Sprintf("descriptors.%d", i), "%s: %v", path, err)
		}
		if err := policy.CheckServed(sets[i]); err != nil {
			return nil, config.Wrong(fmt.Sprintf("descriptors.%d", i), "%s: %v", path, err)
		}
	}
	return sets, nil
}
