package node

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
)

// certificates are the files of certificates and authorities that a process uses. It collects when the first
// certificate in each of them expires.
type certificates []string

var certificateExpires = prometheus.NewDesc("headgate_certificate_expires_timestamp_seconds",
	"When the certificate in the file expires, in seconds since 1970. A file that cannot be read has no series.",
	[]string{"file"}, nil)

// certificates returns the files of a role.
func (s *settings) certificates(role contextkit.Kind) certificates {
	section := map[contextkit.Kind]*serviceSettings{
		contextkit.KindGateway:    &s.Gateway.serviceSettings,
		contextkit.KindAggregate:  &s.Aggregate.serviceSettings,
		contextkit.KindProjection: &s.Projection.serviceSettings,
		contextkit.KindRunner:     &s.Runner.serviceSettings,
		contextkit.KindControl:    &s.Control.serviceSettings,
	}[role]
	files := []string{s.NATS.TLS.Cert, s.NATS.TLS.CA, section.TLS.Cert, section.TLS.CA}
	client := map[contextkit.Kind]clientTLS{
		contextkit.KindGateway: s.Gateway.UpstreamTLS,
		contextkit.KindRunner:  s.Runner.GatewayTLS,
		contextkit.KindControl: s.Control.NodesTLS,
	}[role]
	files = append(files, client.Cert, client.CA)
	if role == contextkit.KindGateway {
		for _, authority := range s.Gateway.Auth.Certificates {
			files = append(files, authority.CA)
		}
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(file string) bool { return file == "" })
}

// Describe implements [prometheus.Collector].
func (certificates) Describe(out chan<- *prometheus.Desc) { out <- certificateExpires }

// Collect implements [prometheus.Collector].
func (c certificates) Collect(out chan<- prometheus.Metric) {
	for _, file := range c {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		block, _ := pem.Decode(text)
		if block == nil {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			out <- prometheus.MustNewConstMetric(certificateExpires, prometheus.GaugeValue,
				float64(cert.NotAfter.Unix()), file)
		}
	}
}
