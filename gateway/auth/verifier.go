package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// Errors of a credential. The caller is told no more than these.
var (
	ErrNoCredential = errors.New("no credential: send `authorization: Bearer TOKEN`")
	ErrBadToken     = errors.New("the token is not valid")
	ErrExpired      = errors.New("the token has expired")
)

// Claims of our own.
const (
	claimTenants = "tenants" // names, or "*" for all
	claimRights  = "rights"
)

const (
	// DefaultLeeway is how far clocks may differ.
	DefaultLeeway = 30 * time.Second
	// cachedTokens bounds the tokens whose verification is remembered: checking
	// a signature costs more than the rest of the pipeline. Only tokens that hold are,
	// so that nobody fills the memory with others.
	cachedTokens = 4096
	// maxTokenBytes bounds a token; a header holds no more.
	maxTokenBytes = 16 << 10
	anyTenant     = "*"
)

// algorithms is the allow-list: asymmetric signatures only, so that nobody can
// sign with what is published to verify.
var algorithms = []jwa.SignatureAlgorithm{jwa.EdDSA(), jwa.ES256(), jwa.ES384(), jwa.RS256(), jwa.PS256()}

// Config says which tokens count.
type Config struct {
	// Keys are the keys that tokens are signed with.
	Keys *KeyRing
	// APIKeys are the keys that count beside tokens; nil: none.
	APIKeys *APIKeyRing
	// Issuer and Audience must be the token's.
	Issuer, Audience string
	// Leeway is how far clocks may differ. 0: [DefaultLeeway].
	Leeway time.Duration
}

// Verifier checks tokens. It may be used concurrently.
type Verifier struct {
	config Config
	known  *lru.Cache[string, verified]
}

// verified is a token that holds; under other keys it must be checked again.
type verified struct {
	principal  *Principal
	from       time.Time
	generation uint64
}

// NewVerifier returns a verifier, or why the configuration is unsafe.
func NewVerifier(config Config) (*Verifier, error) {
	if config.Issuer == "" || config.Audience == "" {
		return nil, errors.New("auth: issuer and audience must be configured")
	}
	if config.Keys == nil {
		return nil, errors.New("auth: no key is configured")
	}
	if config.Leeway == 0 {
		config.Leeway = DefaultLeeway
	}
	known, err := lru.New[string, verified](cachedTokens)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return &Verifier{config: config, known: known}, nil
}

// Authenticate returns the principal of the authorization header's values, now.
// Errors: [ErrNoCredential], or one that wraps [ErrBadToken] or [ErrExpired].
func (v *Verifier) Authenticate(ctx context.Context, now time.Time, authorization []string) (*Principal, error) {
	switch len(authorization) {
	case 0:
		return nil, ErrNoCredential
	case 1:
	default:
		return nil, fmt.Errorf("%w: authorization is given more than once", ErrBadToken)
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, ErrNoCredential
	}
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("%w: it is too long", ErrBadToken)
	}
	if strings.HasPrefix(token, apiKeyPrefix) {
		return v.apiKeys().authenticate(token, now)
	}
	known, ok := v.known.Get(token)
	if !ok || known.generation != v.config.Keys.current.Load().generation {
		var err error
		if known, err = v.verify(ctx, token); err != nil {
			return nil, err
		}
		v.known.Add(strings.Clone(token), known) // the header may be part of something larger
	}
	switch {
	case now.After(known.principal.Until):
		return nil, ErrExpired
	case now.Before(known.from.Add(-v.config.Leeway)):
		return nil, fmt.Errorf("%w: it is not valid yet", ErrBadToken)
	}
	return known.principal, nil
}

// apiKeys are those that count now.
func (v *Verifier) apiKeys() apiKeys {
	if v.config.APIKeys == nil {
		return nil
	}
	return *v.config.APIKeys.current.Load()
}

// Withdrawn reports whether the API key that a principal was admitted by does not count
// any more, or otherwise than then. Of a token that is not known before it expires.
func (v *Verifier) Withdrawn(principal *Principal) bool {
	return principal.key && !v.apiKeys().holds(principal)
}

// verify checks all of a token but whether it is its time, which is checked at
// each use.
func (v *Verifier) verify(ctx context.Context, token string) (verified, error) {
	keys := v.config.Keys.current.Load()
	parsed, err := jwt.Parse([]byte(token), jwt.WithKeySet(keys.set), jwt.WithValidate(false))
	if err != nil && unknownKey(keys.set, token) && v.config.Keys.refreshSoon(ctx, keys.generation) {
		keys = v.config.Keys.current.Load()
		parsed, err = jwt.Parse([]byte(token), jwt.WithKeySet(keys.set), jwt.WithValidate(false))
	}
	if err != nil {
		return verified{}, fmt.Errorf("%w: its signature does not hold", ErrBadToken)
	}
	if issuer, _ := parsed.Issuer(); issuer != v.config.Issuer {
		return verified{}, fmt.Errorf("%w: it is of another issuer", ErrBadToken)
	}
	if audience, _ := parsed.Audience(); !slices.Contains(audience, v.config.Audience) {
		return verified{}, fmt.Errorf("%w: it is for another audience", ErrBadToken)
	}
	until, ok := parsed.Expiration()
	if !ok {
		return verified{}, fmt.Errorf("%w: it does not expire", ErrBadToken)
	}
	from, _ := parsed.NotBefore() // absent: the zero time, long ago
	principal, err := principalOf(parsed)
	if err != nil {
		return verified{}, err
	}
	principal.Until = until.Add(v.config.Leeway)
	return verified{principal: principal, from: from, generation: keys.generation}, nil
}

// unknownKey reports whether a token names a key that is not in the set: it may
// be one that was added since.
func unknownKey(set jwk.Set, token string) bool {
	message, err := jws.Parse([]byte(token))
	if err != nil || len(message.Signatures()) != 1 {
		return false
	}
	id, named := message.Signatures()[0].ProtectedHeaders().KeyID()
	if !named {
		return false
	}
	_, known := set.LookupKeyID(id)
	return !known
}

func principalOf(token jwt.Token) (*Principal, error) {
	subject, _ := token.Subject()
	if subject == "" {
		return nil, fmt.Errorf("%w: it names no subject", ErrBadToken)
	}
	tenants, err := stringsClaim(token, claimTenants)
	if err != nil {
		return nil, err
	}
	rights, err := stringsClaim(token, claimRights)
	if err != nil {
		return nil, err
	}
	p, err := NewPrincipal(subject, tenants, rights)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadToken, err)
	}
	return p, nil
}

// stringsClaim reads a claim that is a list of strings, absent or not.
func stringsClaim(token jwt.Token, name string) ([]string, error) {
	if !token.Has(name) {
		return nil, nil
	}
	var raw []any
	if err := token.Get(name, &raw); err != nil {
		return nil, fmt.Errorf("%w: claim %s is no list", ErrBadToken, name)
	}
	list := make([]string, len(raw))
	for i, value := range raw {
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("%w: claim %s holds something else than strings", ErrBadToken, name)
		}
		list[i] = text
	}
	return list, nil
}
