package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/version"
)

// serviceSettings are the settings of a node of any role: its addresses, their certificates and its announcement.
type serviceSettings struct {
	Server rpc.Config       `yaml:"server"`
	GRPC   string           `yaml:"grpc"`
	Admin  string           `yaml:"admin"`
	TLS    tlsfiles.Files   `yaml:"tls"`
	Node   announceSettings `yaml:"node"`
}

// listen returns the section's listener, under a name.
func (s serviceSettings) listen(kind contextkit.Kind, log zerolog.Logger) (rpc.Config, error) {
	out := s.Server
	out.Name, out.GRPC = kind.String(), s.GRPC
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

// announceSettings configure a node's announcement.
type announceSettings struct {
	ID        string `yaml:"id"`
	Advertise string `yaml:"advertise"`
}

// identify returns the node's id: the configured one, or the kind with the endpoint as others reach it. A port that
// the system chooses results in a new id for every start.
func (a announceSettings) identify(kind contextkit.Kind, listen string) (string, error) {
	if a.ID != "" {
		return a.ID, nil
	}
	endpoint, err := a.endpoint(listen)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(endpoint, ":0") {
		return kind.String() + "-" + contextkit.NewID(), nil
	}
	return kind.String() + "-" + strings.Map(func(r rune) rune {
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
func (a announceSettings) node(kind contextkit.Kind, id, addr string) (fleet.Node, error) {
	endpoint, err := a.endpoint(addr)
	return newNode(kind, id, endpoint), err
}

// newNode returns the announcement of a node that has just started.
func newNode(kind contextkit.Kind, id, endpoint string) fleet.Node {
	return fleet.Node{
		ID:       id,
		Kind:     kind,
		Endpoint: endpoint,
		Tokens:   token.Newest,
		Started:  time.Now().UTC(),
		Version:  version.Get().Version,
	}
}
