package deploy

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// files are the settings of certificates of a listener or of a channel.
type files struct{ Cert, Key, CA string }

// section is what the test needs of a role's settings.
type section struct {
	TLS         files
	UpstreamTLS files `yaml:"upstream_tls"`
	GatewayTLS  files `yaml:"gateway_tls"`
	NodesTLS    files `yaml:"nodes_tls"`
	Postgres    string
}

// Every connection of a role is TLS. Both sides have a certificate and verify the other one's, except clients of the
// gateway, who need none, and PostgreSQL, which has passwords.
func TestSettings_EveryConnectionIsTLS(t *testing.T) {
	for _, deployment := range []string{"compose", "kubernetes"} {
		text, err := os.ReadFile("../../deploy/" + deployment + "/headgate.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var settings struct {
			NATS struct {
				URL string
				TLS files
			}
			Callers                                         any
			Gateway, Aggregate, Projection, Runner, Control section
		}
		if err := yaml.Unmarshal(text, &settings); err != nil {
			t.Fatal(err)
		}
		want := files{"/etc/headgate/tls/tls.crt", "/etc/headgate/tls/tls.key", "/etc/headgate/tls/ca.crt"}
		for name, got := range map[string]files{
			"nats": settings.NATS.TLS, "aggregate": settings.Aggregate.TLS, "projection": settings.Projection.TLS,
			"runner": settings.Runner.TLS, "control": settings.Control.TLS,
			"gateway to nodes": settings.Gateway.UpstreamTLS, "runner to gateway": settings.Runner.GatewayTLS,
			"control to nodes": settings.Control.NodesTLS,
		} {
			if got != want {
				t.Errorf("%s, %s: %+v", deployment, name, got)
			}
		}
		if got := settings.Gateway.TLS; got.Cert != want.Cert || got.Key != want.Key {
			t.Errorf("%s, gateway: %+v", deployment, got)
		}
		if !strings.HasPrefix(settings.NATS.URL, "tls://") {
			t.Errorf("%s: %s", deployment, settings.NATS.URL)
		}
		if url := settings.Projection.Postgres; url != "" && !strings.Contains(url, "sslmode=verify-full") {
			t.Errorf("%s: %s", deployment, url)
		}
		if settings.Callers != nil {
			t.Errorf("%s admits certificates without a role: %v", deployment, settings.Callers)
		}
	}
}
