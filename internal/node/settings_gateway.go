package node

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/control/ui"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	rest "github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/proxies"
	"github.com/headgate/headgate/internal/tlsfiles"
)

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

// minShare is the smallest valid tenant_share and caller_share.
const minShare = 0.001

// gatewayParts are what a gateway's section names.
type gatewayParts struct {
	proxies     *proxies.Set
	routes      *route.Table
	descriptors [][]byte
}

// open checks the section except its address and its credentials, and opens what it names. own are nodes in addition
// to those of the section.
func (g *gatewaySettings) open(log zerolog.Logger, own ...route.Node) (gatewayParts, error) {
	trusted, proxiesErr := proxies.New(g.Proxies)
	routes, routesErr := g.routes(own...)
	sets, setsErr := descriptorSets(g.Descriptors)
	var channelsErr error
	if g.Upstream.TLS, channelsErr = g.UpstreamTLS.channels(log); channelsErr != nil {
		channelsErr = config.Wrong("upstream_tls", "%v", channelsErr)
	}
	return gatewayParts{trusted, routes, sets}, errors.Join(
		config.Inside("proxies", proxiesErr), g.checkHSTS(), g.checkCertificates(),
		gateway.CheckOrigins(g.origins()...),
		routesErr, setsErr, channelsErr,
		config.Inside("upstream", g.Upstream.Validate()),
		config.Inside("breakers", g.Breakers.Validate()),
		config.Inside("probes", g.Probes.Validate()),
		config.Inside("tenant_limits", g.TenantLimits.Validate()),
		config.AtLeast("max_timeout", g.MaxTimeout, 0),
		config.AtLeast("max_stream_timeout", g.MaxStreamTimeout, 0),
		config.AtLeast("max_concurrent", g.MaxConcurrent, 1),
		config.AtLeast("max_streams", g.MaxStreams, 1),
		config.AtLeast("max_bytes", g.MaxBytes, 1<<20),
		config.Within("tenant_share", g.TenantShare, minShare, 1),
		config.Within("caller_share", g.CallerShare, minShare, 1),
	)
}

// config returns the configuration of a gateway that listens at listen and accepts the credentials of accepted.
func (g *gatewaySettings) config(listen rpc.Config, accepted auth.Config) gateway.Config {
	var pages http.Handler
	var origins []*auth.SignInOrigins
	if g.UI {
		var signIns []ui.SignIn
		signIns, origins = g.Auth.signIns()
		pages = ui.Handler(signIns...)
	}
	return gateway.Config{
		Listen:           listen,
		Admin:            g.Admin,
		Auth:             accepted,
		Platform:         g.Auth.Platform,
		Upstream:         g.Upstream,
		Breakers:         g.Breakers,
		Probes:           g.Probes,
		MaxTimeout:       g.MaxTimeout,
		MaxStreamTimeout: g.MaxStreamTimeout,
		MaxConcurrent:    g.MaxConcurrent,
		MaxStreams:       g.MaxStreams,
		MaxBytes:         g.MaxBytes,
		TenantShare:      g.TenantShare,
		CallerShare:      g.CallerShare,
		Limits:           g.TenantLimits,
		Origins:          g.origins(),
		HSTS:             g.HSTS,
		Query:            rest.Query{Ignored: g.IgnoredParameters},
		KeepAlive:        g.StreamKeepAlive,
		UI:               pages,
		SignIns:          origins,
		ForeignOnly:      !g.PlatformServices,
	}
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

// checkCertificates returns an error if clients cannot present the certificates that are accepted.
func (g *gatewaySettings) checkCertificates() error {
	if len(g.Auth.Certificates) > 0 && g.TLS.Cert == "" {
		return config.Wrong("auth.certificates", "have no effect without tls: clients present certificates over TLS")
	}
	return nil
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
