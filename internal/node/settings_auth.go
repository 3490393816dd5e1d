package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/control/ui"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/config"
)

// authSettings are the accepted credentials. The inner settings are those of the issuer whose subjects have no
// prefix.
type authSettings struct {
	issuerSettings `yaml:",inline"`

	Issuers      []namedIssuer       `yaml:"issuers"`
	Certificates []authoritySettings `yaml:"certificates"`
	KeysMaxAge   time.Duration       `yaml:"keys_max_age"`
	MaxLifetime  time.Duration       `yaml:"max_lifetime"`
	APIKeys      string              `yaml:"api_keys"`
	Revocations  string              `yaml:"revocations"`
	Leeway       time.Duration       `yaml:"leeway"`
	Platform     []string            `yaml:"platform"`
}

// authoritySettings are an authority whose certificates clients may present as their credential.
type authoritySettings struct {
	Name       string             `yaml:"name"`
	CA         string             `yaml:"ca"`
	Direct     bool               `yaml:"direct"`
	CRL        string             `yaml:"crl"`
	CRLExpired string             `yaml:"crl_expired"`
	Claims     auth.MappingConfig `yaml:"claims"`
}

// Values of crl_expired.
const (
	crlRefuse = "refuse"
	crlAccept = "accept"
)

// open opens the files of the authority.
func (s authoritySettings) open(ctx context.Context) (*auth.Authority, error) {
	var wrong error
	switch s.CRLExpired {
	case "", crlRefuse, crlAccept:
	default:
		wrong = config.Wrong("crl_expired", "is %q, want %q or %q", s.CRLExpired, crlRefuse, crlAccept)
	}
	if s.CRL == "" && s.CRLExpired != "" {
		wrong = config.Wrong("crl_expired", "has no effect without crl")
	}
	if s.CA == "" {
		return nil, errors.Join(
			wrong, config.Wrong("ca", "is missing: the file (PEM) of the authority's certificates"),
		)
	}
	certificates, err := auth.OpenAuthority(ctx, auth.File(s.CA))
	if err != nil {
		return nil, errors.Join(wrong, config.Wrong("ca", "%v", err))
	}
	if s.CRL != "" {
		if err := certificates.OpenLists(ctx, auth.FileOfLists(s.CRL), s.CRLExpired == crlAccept); err != nil {
			wrong = errors.Join(wrong, config.Wrong("crl", "%v", err))
		}
	}
	return certificates, wrong
}

// issuerSettings are an issuer of tokens.
type issuerSettings struct {
	Issuer     string             `yaml:"issuer"`
	Audience   texts              `yaml:"audience"`
	Keys       string             `yaml:"keys"`
	KeyOrigins []string           `yaml:"key_origins"`
	CA         string             `yaml:"ca"`
	Algorithms []string           `yaml:"algorithms"`
	Claims     auth.MappingConfig `yaml:"claims"`
	UIClientID string             `yaml:"ui_client_id"`
	UIScopes   texts              `yaml:"ui_scopes"`
}

// namedIssuer is a further issuer.
type namedIssuer struct {
	Name           string `yaml:"name"`
	issuerSettings `yaml:",inline"`
}

// texts is a list of texts, which may be written as one text.
type texts []string

// UnmarshalYAML implements [yaml.Unmarshaler].
func (t *texts) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		return node.Decode((*[]string)(t))
	}
	var one string
	if err := node.Decode(&one); err != nil {
		return err
	}
	*t = nil
	if one != "" {
		*t = texts{one}
	}
	return nil
}

// issuer is an issuer whose settings have been checked, except for its keys.
type issuer struct {
	config auth.IssuerConfig
	keys   auth.KeyRingConfig
	remote bool // the keys are fetched over HTTP
}

// verify checks the section and opens what it names, except the keys.
func (a authSettings) verify(ctx context.Context) (auth.Config, []*issuer, error) {
	var issuers []*issuer
	var err error
	if a.Issuer != "" || len(a.Issuers) == 0 {
		var first *issuer
		first, err = a.open(a.KeysMaxAge)
		issuers = append(issuers, first)
	}
	further, furtherErr := a.further(a.Issuer)
	out, credentialsErr := a.credentials(ctx)
	var authoritiesErr error
	out.Authorities, authoritiesErr = a.authorities(ctx)
	return out, append(issuers, further...), errors.Join(err, furtherErr, credentialsErr, authoritiesErr)
}

// authorities checks the authorities of clients' certificates, and opens what they name.
func (a authSettings) authorities(ctx context.Context) (out []auth.AuthorityConfig, err error) {
	taken := map[string]bool{}
	for _, issuer := range a.Issuers {
		taken[issuer.Name] = true
	}
	for i, s := range a.Certificates {
		mapping, wrong := auth.NewCertificateMapping(s.Claims)
		if wrong != nil {
			wrong = mappingErrors(wrong)
		}
		switch invalid := auth.CheckIssuerName(s.Name); {
		case s.Name == "":
			wrong = errors.Join(
				wrong, config.Wrong("name", "is missing: it begins the subjects of principals, as in NAME:SUBJECT"),
			)
		case invalid != nil:
			wrong = errors.Join(wrong, config.Wrong("name", "%v", invalid))
		case taken[s.Name]:
			wrong = errors.Join(wrong, config.Wrong("name", "is %q, which another authority or issuer has too", s.Name))
		}
		taken[s.Name] = true
		certificates, invalid := s.open(ctx)
		wrong = errors.Join(wrong, invalid)
		out = append(out, auth.AuthorityConfig{
			Name:         s.Name,
			Certificates: certificates,
			Direct:       s.Direct,
			Mapping:      mapping,
		})
		err = errors.Join(err, config.Inside(fmt.Sprintf("certificates.%d", i), wrong))
	}
	return out, err
}

// further checks the further issuers, beside one whose iss is first, and opens what they name, except the keys.
func (a authSettings) further(first string) (issuers []*issuer, err error) {
	known, names := map[string]bool{first: true}, map[string]bool{}
	for i, named := range a.Issuers {
		further, wrong := named.open(a.KeysMaxAge)
		further.config.Name = named.Name
		switch invalid := auth.CheckIssuerName(named.Name); {
		case named.Name == "":
			wrong = errors.Join(
				wrong,
				config.Wrong("name",
					"is missing: it begins the subjects of the issuer's principals, as in NAME:SUBJECT"),
			)
		case invalid != nil:
			wrong = errors.Join(wrong, config.Wrong("name", "%v", invalid))
		case names[named.Name]:
			wrong = errors.Join(wrong, config.Wrong("name", "is %q, which another issuer has too", named.Name))
		}
		if named.Issuer != "" && known[named.Issuer] {
			wrong = errors.Join(wrong, config.Wrong("issuer", "is %q, which another issuer is too", named.Issuer))
		}
		known[named.Issuer], names[named.Name] = true, true
		issuers, err = append(issuers, further), errors.Join(err, config.Inside(fmt.Sprintf("issuers.%d", i), wrong))
	}
	return issuers, err
}

// open checks the issuer's settings except its name, and opens what it names, except the keys.
func (s issuerSettings) open(maxAge time.Duration) (*issuer, error) {
	var errs []error
	if s.Issuer == "" {
		errs = append(errs, config.Wrong("issuer", "is missing: a token must name its issuer"))
	}
	if len(s.Audience) == 0 {
		errs = append(errs, config.Wrong("audience", "is missing: a token must be meant for this gateway"))
	}
	if err := auth.CheckAlgorithms(s.Algorithms); err != nil {
		errs = append(errs, config.Wrong("algorithms", "%v", err))
	}
	mapping, err := auth.NewMapping(s.Claims)
	if err != nil {
		errs = append(errs, mappingErrors(err))
	}
	roots, err := s.roots()
	if err != nil {
		errs = append(errs, config.Wrong("ca", "%v", err))
	}
	if err := s.checkSignIn(); err != nil {
		errs = append(errs, err)
	}
	source, err := s.source(roots)
	remote := s.Keys == "" || isURL(s.Keys)
	return &issuer{
		config: auth.IssuerConfig{Issuer: s.Issuer, Audiences: s.Audience, Mapping: mapping},
		keys: auth.KeyRingConfig{
			Source:     source,
			Algorithms: s.Algorithms,
			Foreign:    remote,
			MaxAge:     maxAge,
		},
		remote: remote,
	}, errors.Join(append(errs, err)...)
}

// defaultUIScopes are requested where the settings name none: offline_access has most providers issue refresh tokens.
var defaultUIScopes = []string{"openid", "offline_access"}

// signIn returns how operators sign in to the Control UI at the issuer.
func (s issuerSettings) signIn(name string) ui.SignIn {
	scopes := []string(s.UIScopes)
	if len(scopes) == 0 {
		scopes = defaultUIScopes
	}
	return ui.SignIn{
		Name:     name,
		Issuer:   s.Issuer,
		ClientID: s.UIClientID,
		Scopes:   scopes,
	}
}

// checkSignIn checks the settings of the Control UI's sign-in, if the issuer has it.
func (s issuerSettings) checkSignIn() error {
	switch {
	case s.UIClientID == "" && len(s.UIScopes) > 0:
		return config.Wrong("ui_scopes", "has no effect without ui_client_id")
	case s.UIClientID == "" || s.Issuer == "":
		return nil // operators do not sign in, or the missing issuer is reported
	}
	signIn := s.signIn("")
	if err := errors.Join((auth.Discovery{Issuer: s.Issuer}).Check(), signIn.Check()); err != nil {
		return config.Wrong("ui_client_id", "operators cannot sign in: %v", err)
	}
	return nil
}

// signIns returns the issuers at which operators sign in to the Control UI, and the origins of their endpoints, which
// must be followed.
func (a authSettings) signIns() (out []ui.SignIn, origins []*auth.SignInOrigins) {
	for _, issuer := range append([]namedIssuer{{issuerSettings: a.issuerSettings}}, a.Issuers...) {
		if issuer.UIClientID == "" {
			continue
		}
		roots, err := issuer.roots()
		if err != nil {
			continue // the settings have been checked: the file has been removed since
		}
		elsewhere := auth.Discovery{Issuer: issuer.Issuer, Roots: roots}.SignInOrigins()
		signIn := issuer.signIn(issuer.Name)
		signIn.Elsewhere = elsewhere.Current
		out, origins = append(out, signIn), append(origins, elsewhere)
	}
	return out, origins
}

// mappingErrors returns the errors of a mapping under the names of their settings.
func mappingErrors(err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var errs []error
	for _, err := range all {
		if wrong, ok := errors.AsType[*auth.MappingError](err); ok {
			err = config.Wrong("claims."+wrong.Field, "%s", wrong.Reason)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// source returns the source of the keys: the file or URL of the settings, or else discovery.
func (s issuerSettings) source(roots *x509.CertPool) (auth.Source, error) {
	switch {
	case isURL(s.Keys):
		if err := auth.CheckURL(s.Keys); err != nil {
			return nil, config.Wrong("keys", "%v", err)
		}
		return auth.URL(s.Keys, roots), nil
	case s.Keys != "":
		if _, err := os.Stat(s.Keys); err != nil {
			return nil, config.Wrong("keys", "%v", err)
		}
		return auth.File(s.Keys), nil
	case s.Issuer != "" && !isURL(s.Issuer):
		return nil, config.Wrong(
			"keys",
			"is missing: a JWK set, as a file or a URL, verifies tokens; only an issuer that is a URL can be asked "+
				"for it",
		)
	case s.Issuer == "":
		return nil, nil // the missing issuer is reported
	}
	discovery := auth.Discovery{Issuer: s.Issuer, KeyOrigins: s.KeyOrigins, Roots: roots}
	if err := discovery.Check(); err != nil {
		return nil, config.Wrong("issuer", "%v", err)
	}
	return discovery.Source(), nil
}

// roots returns the authorities of the issuer's servers; nil: the system's.
func (s issuerSettings) roots() (*x509.CertPool, error) {
	if s.CA == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	text, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate (PEM)", s.CA)
	}
	return pool, nil
}

// openKeys reads the keys of issuers, and returns them beside own, whose keys are known. An issuer whose keys are
// fetched may be away if another one's are known: its tokens are accepted later. It returns an awayError if no
// issuer's are known.
func openKeys(
	ctx context.Context, issuers []*issuer, log zerolog.Logger, own ...auth.IssuerConfig,
) ([]auth.IssuerConfig, error) {
	out := own
	var away []error
	for _, issuer := range issuers {
		if issuer.config.Keys == nil {
			ring, err := auth.NewKeyRing(ctx, issuer.keys)
			if err != nil {
				return nil, err
			}
			issuer.config.Keys = ring
		}
		err := issuer.config.Keys.Refresh(ctx)
		switch {
		case err != nil && !issuer.remote:
			return nil, err
		case err != nil:
			away = append(away, err)
			log.Error().Err(err).Str("issuer", issuer.config.Issuer).Msg(
				"the issuer's keys are unavailable; its tokens are rejected until they are read",
			)
		}
		out = append(out, issuer.config)
	}
	if len(away) == len(out) {
		return nil, awayError{"the keys of tokens are unavailable", errors.Join(away...)}
	}
	return out, nil
}

// credentials checks the times, and opens the API keys and revocations.
func (a authSettings) credentials(ctx context.Context) (auth.Config, error) {
	out := auth.Config{Leeway: a.Leeway, MaxLifetime: a.MaxLifetime}
	err := errors.Join(
		config.AtLeast("leeway", a.Leeway, 0),
		config.AtLeast("keys_max_age", a.KeysMaxAge, time.Minute),
		config.Within("max_lifetime", a.MaxLifetime, time.Minute, auth.MaxTokenLifetime),
	)
	if a.APIKeys != "" {
		keys, wrong := auth.OpenAPIKeys(ctx, auth.File(a.APIKeys))
		if out.APIKeys = keys; wrong != nil {
			err = errors.Join(err, config.Wrong("api_keys", "%v", wrong))
		}
	}
	if a.Revocations != "" {
		list, wrong := auth.OpenRevocations(ctx, auth.FileOfRevocations(a.Revocations))
		if out.Revocations = list; wrong != nil {
			err = errors.Join(err, config.Wrong("revocations", "%v", wrong))
		}
	}
	return out, err
}

// isURL reports whether a source is fetched over HTTP.
func isURL(source string) bool {
	return strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://")
}
