package node

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/runner/webhook"
)

type aggregateSettings struct {
	serviceSettings `yaml:",inline"`

	Answers    response.Config `yaml:"answers"`
	CacheBytes int64           `yaml:"cache_bytes"`

	Quota fleet.StorageQuota `yaml:"quota"`
}

// check checks the section except its node.
func (a *aggregateSettings) check() error {
	return errors.Join(
		config.Inside("answers", a.Answers.Validate()),
		config.AtLeast("cache_bytes", a.CacheBytes, aggregate.MinCacheBytes),
		config.Inside("quota", checkQuota(a.Quota)),
	)
}

// config returns the configuration of the service. synced states that the NATS server syncs each write.
func (a *aggregateSettings) config(synced bool) aggregate.Config {
	return aggregate.Config{
		Synced:     synced,
		Answers:    a.Answers,
		CacheBytes: a.CacheBytes,
		Quota:      a.Quota,
	}
}

// checkQuota checks the default quota of tenants.
func checkQuota(q fleet.StorageQuota) error {
	return errors.Join(config.AtLeast("events", q.Events, 0), config.AtLeast("bytes", q.Bytes, 0),
		config.AtLeast("aggregates", q.Aggregates, 0), config.AtLeast("keys", q.Keys, 0))
}

type projectionSettings struct {
	serviceSettings `yaml:",inline"`

	Answers  response.Config `yaml:"answers"`
	Data     string          `yaml:"data"`
	Postgres string          `yaml:"postgres"`
}

type controlSettings struct {
	serviceSettings `yaml:",inline"`

	NodesTLS clientTLS `yaml:"nodes_tls"`
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

// readCredential reads a token or API key from its file.
func readCredential(path string) (string, error) {
	if path == "" {
		return "", errors.New("is missing: it authenticates commands")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	credential := strings.TrimSpace(string(text))
	if credential == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return credential, nil
}
