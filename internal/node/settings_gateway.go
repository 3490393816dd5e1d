package node

import (
	"fmt"
	"os"
	"time"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/config"
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
