package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/config"
)

type authSettings struct {
	Issuer   string        `yaml:"issuer"`
	Audience string        `yaml:"audience"`
	Keys     string        `yaml:"keys"`
	APIKeys  string        `yaml:"api_keys"`
	Leeway   time.Duration `yaml:"leeway"`
	Platform []string      `yaml:"platform"`
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
