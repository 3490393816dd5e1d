package node

import (
	"crypto/tls"
	"errors"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/tlsfiles"
)

// clientTLS is tlsfiles.Files with the name that a server must have.
type clientTLS struct {
	tlsfiles.Files `yaml:",inline"`

	ServerName string `yaml:"server_name"`
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
