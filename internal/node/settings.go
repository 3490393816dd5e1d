package node

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fastpath"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/model"
)

// documentedSettings has every setting with its explanation and its default.
//
//go:embed headgate.yaml
var documentedSettings []byte

// DocumentedSettings returns a settings file with every setting, its explanation and its default.
func DocumentedSettings() []byte { return bytes.Clone(documentedSettings) }

// settings are the file of 'headgate serve' and 'headgate dev'.
type settings struct {
	NATS       natsSettings       `yaml:"nats"`
	Callers    callerSettings     `yaml:"callers"`
	Tenants    []string           `yaml:"tenants"`
	Model      string             `yaml:"model"`
	Log        string             `yaml:"log"`
	Tracing    tracing.Config     `yaml:"tracing"`
	FastPaths  fastpath.Paths     `yaml:"fast_paths"`
	Gateway    gatewaySettings    `yaml:"gateway"`
	Aggregate  aggregateSettings  `yaml:"aggregate"`
	Projection projectionSettings `yaml:"projection"`
	Runner     runnerSettings     `yaml:"runner"`
	Control    controlSettings    `yaml:"control"`

	file *config.File
}

// defaultSettings returns the documented settings.
func defaultSettings() (*settings, error) {
	s := &settings{}
	if _, err := config.Parse("headgate.yaml", documentedSettings, s); err != nil {
		return nil, fmt.Errorf("the documented settings: %w", err)
	}
	return s, nil
}

// readSettings reads the file over the documented settings.
func readSettings(path string) (*settings, error) {
	s, err := defaultSettings()
	if err != nil {
		return nil, err
	}
	if s.file, err = config.Read(path, s); err != nil {
		return nil, err
	}
	s.selectPaths()
	return s, nil
}

// selectPaths passes the selected fast paths to the sections' servers and channels.
func (s *settings) selectPaths() {
	sections := []*serviceSettings{
		&s.Gateway.serviceSettings, &s.Aggregate.serviceSettings, &s.Projection.serviceSettings,
		&s.Runner.serviceSettings, &s.Control.serviceSettings,
	}
	for _, section := range sections {
		section.Server.FastPaths = s.FastPaths
	}
	s.Gateway.Upstream.FastPaths = s.FastPaths
}

// common checks the settings that all roles use.
func (s *settings) common() error {
	errs := []error{
		config.Inside("nats", s.NATS.check()), config.Inside("tracing", s.Tracing.Validate()),
		config.Inside("fast_paths", s.FastPaths.Validate()),
	}
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
