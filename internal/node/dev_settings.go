package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/config"
)

// devRefusals are the settings that a development process cannot honour, or sections of them, with the reason.
var devRefusals = []struct{ setting, reason string }{
	{"nats", "dev runs its own NATS server, in the directory of --data"},
	{"callers", "the gateway of dev calls the services within the process, without certificates"},
	{"gateway.tls", "dev serves clear text: put a proxy with TLS before it (gateway.proxies), or use 'headgate serve'"},
	{"gateway.node", devNodeReason},
	{"gateway.auth.issuer", devAuthReason},
	{"gateway.auth.audience", devAuthReason},
	{"gateway.auth.keys", devAuthReason},
	{"gateway.auth.key_origins", devAuthReason},
	{"gateway.auth.ca", devAuthReason},
	{"gateway.auth.algorithms", devAuthReason},
	{"gateway.auth.claims", devAuthReason},
	{"gateway.auth.certificates", "dev serves clear text, and clients present certificates over TLS"},
	{"gateway.auth.ui_client_id", devAuthReason},
	{"gateway.auth.ui_scopes", devAuthReason},
	{"aggregate.tls", devTLSReason},
	{"aggregate.node", devNodeReason},
	{"projection.tls", devTLSReason},
	{"projection.node", devNodeReason},
	{"projection.data", "dev stores the views in the directory of --data"},
	{"projection.postgres", "dev stores the views in the directory of --data"},
	{"runner.tls", devTLSReason},
	{"runner.node", devNodeReason},
	{"runner.gateway", "the runner of dev calls the gateway of its process"},
	{"runner.credential", "dev issues the tokens of its runner"},
	{"runner.gateway_tls", "the runner of dev calls the gateway of its process"},
	{"control.tls", devTLSReason},
	{"control.node", devNodeReason},
}

const (
	devNodeReason = "dev names its nodes: there is one of each kind"
	devTLSReason  = "the services of dev are called within the process, without TLS"
	devAuthReason = "dev accepts the tokens that 'headgate token' issues, those of gateway.auth.issuers, and API " +
		"keys (gateway.auth.api_keys)"
)

// devSettings returns the settings of a development process: the documented ones with dev's own defaults, those of its
// file, and those of its flags, each over the former.
func devSettings(ctx context.Context, c *DevConfig) (*settings, error) {
	s, err := defaultSettings()
	if err != nil {
		return nil, err
	}
	s.Log = "warn"
	s.Runner.Webhooks.Private, s.Runner.Webhooks.Plain = true, true
	if c.Config != "" {
		if s.file, err = config.Read(c.Config, s); err != nil {
			return nil, err
		}
		// Before the flags, so that each error of the file has its line.
		if err := s.file.Locate(errors.Join(s.refusedByDev(), s.checkDev(ctx))); err != nil {
			return nil, err
		}
	}
	if err := c.override(s); err != nil {
		return nil, err
	}
	s.selectPaths()
	return s, s.checkDev(ctx)
}

// refusedByDev returns an error for each setting of the file that dev cannot honour.
func (s *settings) refusedByDev() error {
	var errs []error
	for _, set := range s.file.Set() {
		for _, refusal := range devRefusals {
			if set == refusal.setting || strings.HasPrefix(set, refusal.setting+".") {
				errs = append(errs, config.Wrong(set, "dev does not take it: %s", refusal.reason))
			}
		}
	}
	if !s.Gateway.PlatformServices {
		errs = append(
			errs,
			config.Wrong("gateway.platform_services",
				"dev does not take false: its runner sends commands to the gateway"),
		)
	}
	return errors.Join(errs...)
}

// devKinds are the kinds of the services of a development process.
var devKinds = []contextkit.Kind{
	contextkit.KindAggregate, contextkit.KindProjection, contextkit.KindRunner, contextkit.KindControl,
}

// devID returns the id of the service of a kind.
func devID(kind contextkit.Kind) string { return kind.String() + "-1" }

// devNode returns the route to the service of a kind.
func devNode(kind contextkit.Kind, endpoint string) route.Node {
	return route.Node{
		ID:       devID(kind),
		Kind:     kind,
		Endpoint: endpoint,
		Ready:    true,
	}
}

// service returns the settings of the node of a service.
func (s *settings) service(kind contextkit.Kind) *serviceSettings {
	return map[contextkit.Kind]*serviceSettings{
		contextkit.KindAggregate:  &s.Aggregate.serviceSettings,
		contextkit.KindProjection: &s.Projection.serviceSettings,
		contextkit.KindRunner:     &s.Runner.serviceSettings,
		contextkit.KindControl:    &s.Control.serviceSettings,
	}[kind]
}

// override replaces settings by the flags that are given.
func (c *DevConfig) override(s *settings) error {
	for _, flag := range []struct {
		value   string
		setting *string
	}{
		{c.Model, &s.Model},
		{c.Listen, &s.Gateway.Server.Addr},
		{c.GRPCListen, &s.Gateway.GRPC},
		{c.AdminListen, &s.Gateway.Admin},
		{c.AggregateListen, &s.Aggregate.Server.Addr},
		{c.ProjectionListen, &s.Projection.Server.Addr},
		{c.ControlListen, &s.Control.Server.Addr},
		{c.RunnerListen, &s.Runner.Server.Addr},
		{c.APIKeys, &s.Gateway.Auth.APIKeys},
		{c.OTLP, &s.Tracing.Endpoint},
		{c.LogLevel, &s.Log},
	} {
		if flag.value != "" {
			*flag.setting = flag.value
		}
	}
	for _, flag := range []struct{ values, setting *[]string }{
		{&c.Tenants, &s.Tenants},
		{&c.Proxy, &s.Gateway.Proxies.Trusted},
		{&c.Webhook, &s.Runner.Webhooks.Allow},
		{&c.Descriptors, &s.Gateway.Descriptors},
	} {
		if len(*flag.values) > 0 {
			*flag.setting = *flag.values
		}
	}
	if len(c.Origin) > 0 {
		s.Gateway.Origins = nil
		for _, origin := range c.Origin {
			s.Gateway.Origins = append(s.Gateway.Origins, originSettings{Origin: origin})
		}
	}
	return c.overrideNodes(&s.Gateway)
}

// overrideNodes replaces the further nodes by those of the flags, if there are any.
func (c *DevConfig) overrideNodes(g *gatewaySettings) error {
	if len(c.Node) > 0 {
		g.Nodes = nil
	}
	for i, text := range c.Node {
		name, endpoint, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--node %q: want KIND=HOST:PORT", text)
		}
		kind, err := contextkit.ParseKind(name)
		if err != nil {
			return fmt.Errorf("--node %q: %w", text, err)
		}
		g.Nodes = append(g.Nodes,
			nodeSettings{ID: fmt.Sprintf("%s-extra-%d", kind, i+1), Kind: kind, Endpoint: endpoint})
	}
	for i := range g.Nodes {
		g.Nodes[i].Reflect = g.Nodes[i].Reflect || c.Reflect
	}
	return nil
}

// checkDev checks the settings of a development process, and the files that they name except the model.
func (s *settings) checkDev(ctx context.Context) error {
	_, err := s.served()
	errs := []error{s.common(), err}
	check := func(kind contextkit.Kind, err error) { errs = append(errs, config.Inside(kind.String(), err)) }
	log := zerolog.Nop()
	var own []route.Node
	for _, kind := range devKinds {
		own = append(own, devNode(kind, kind.String()+":0")) // the services do not listen yet
		_, err := s.service(kind).listen(kind, log)
		check(kind, err)
	}
	_, err = s.Gateway.listen(contextkit.KindGateway, log)
	check(contextkit.KindGateway, err)
	_, err = s.Gateway.open(log, own...)
	check(contextkit.KindGateway, err)
	_, err = s.Gateway.Auth.credentials(ctx)
	check(contextkit.KindGateway, config.Inside("auth", err))
	_, err = s.Gateway.Auth.further(devIssuer)
	check(contextkit.KindGateway, config.Inside("auth", err))
	check(contextkit.KindAggregate, s.Aggregate.check())
	check(contextkit.KindProjection, config.Inside("answers", s.Projection.Answers.Validate()))
	check(contextkit.KindRunner, config.Inside("answers", s.Runner.Answers.Validate()))
	_, err = s.Runner.Webhooks.open()
	check(contextkit.KindRunner, config.Inside("webhooks", err))
	if _, err := s.Control.NodesTLS.channels(log); err != nil {
		check(contextkit.KindControl, config.Wrong("nodes_tls", "%v", err))
	}
	return errors.Join(errs...)
}
