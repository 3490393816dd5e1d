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
	source := auth.File(a.Keys)
	if isURL(a.Keys) {
		source = auth.URL(a.Keys)
	} else if a.Keys != "" {
		if _, err := os.Stat(a.Keys); err != nil {
			errs = append(errs, config.Wrong("keys", "%v", err))
		}
	}
	out, err := a.credentials(ctx)
	out.Issuer, out.Audience = a.Issuer, a.Audience
	return out, source, errors.Join(append(errs, err)...)
}

// credentials checks the leeway, and opens the API keys.
func (a authSettings) credentials(ctx context.Context) (auth.Config, error) {
	out, err := auth.Config{Leeway: a.Leeway}, config.AtLeast("leeway", a.Leeway, 0)
	if a.APIKeys == "" {
		return out, err
	}
	keys, keysErr := auth.OpenAPIKeys(ctx, auth.File(a.APIKeys))
	if keysErr != nil {
		return out, errors.Join(err, config.Wrong("api_keys", "%v", keysErr))
	}
	out.APIKeys = keys
	return out, err
}

// isURL reports whether a source is fetched over HTTP.
func isURL(source string) bool {
	return strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://")
}
