package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Errors of a credential. Their texts are public; the errors that wrap them have details for the
// gateway's log.
var (
	ErrNoCredential    = errors.New("no credential: send `authorization: Bearer TOKEN`")
	ErrManyCredentials = errors.New("authorization is given more than once: send it once")
	ErrBadToken        = errors.New("the token is invalid")
	ErrExpired         = errors.New("the token has expired")
	ErrNotYetValid     = errors.New("the token is not valid yet")
	ErrRevoked         = errors.New("the credential was revoked or changed")
	// Errors of tickets, which stand for a credential.
	ErrBadTicket = errors.New(
		"the ticket is invalid, or for another path: create one with SessionService.CreateTicket",
	)
	ErrExpiredTicket = errors.New(
		"the ticket has expired: open its stream within 30 seconds, or resume it after an event (Last-Event-ID)",
	)
	ErrTwoCredentials = errors.New("the request has a ticket and an authorization header: send one of them")
)

// Public returns the public error of a credential's error.
func Public(err error) error {
	for _, known := range []error{
		ErrNoCredential, ErrManyCredentials, ErrExpired, ErrNotYetValid, ErrRevoked, ErrBadTicket, ErrExpiredTicket,
		ErrTwoCredentials,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return ErrBadToken
}

const (
	// DefaultLeeway is the permitted difference of clocks.
	DefaultLeeway = 30 * time.Second
	// maxQuoted bounds the characters that an error quotes of a token.
	maxQuoted = 64
	anyTenant = "*"
)

// Config configures the accepted credentials.
type Config struct {
	// Keys are the signing keys of tokens.
	Keys *KeyRing
	// APIKeys are the accepted API keys; nil: none.
	APIKeys *APIKeyRing
	// Issuer and Audience are the required iss and aud claims of tokens.
	Issuer, Audience string
	// Leeway is the permitted difference of clocks. 0: [DefaultLeeway].
	Leeway time.Duration
}

// Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	config Config
	known  *tokenCache
}

// NewVerifier returns a verifier, or an error if the configuration is unsafe.
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
	return &Verifier{config: config, known: newTokenCache()}, nil
}

// Authenticate returns the principal of the Authorization header's values at the time now. It waits
// only for keys that may have been rotated, within ctx. Its errors wrap this package's errors;
// [Public] returns the public part.
func (v *Verifier) Authenticate(ctx context.Context, now time.Time, authorization []string) (*Principal, error) {
	switch len(authorization) {
	case 0:
		return nil, ErrNoCredential
	case 1:
	default:
		return nil, ErrManyCredentials
	}
	// RFC 9110 §11.4: the scheme is case-insensitive, and spaces follow it.
	scheme, credential, _ := strings.Cut(authorization[0], " ")
	credential = strings.TrimLeft(credential, " ")
	if !strings.EqualFold(scheme, "bearer") || credential == "" {
		return nil, ErrNoCredential
	}
	if strings.HasPrefix(credential, apiKeyPrefix) {
		return v.apiKeys().authenticate(credential, now)
	}
	known, ok := v.known.get(credential)
	if !ok || known.keys != v.config.Keys.current.Load() && !v.config.Keys.holds(known.principal.signer) {
		var err error
		if known, err = v.verify(ctx, credential); err != nil {
			return nil, err
		}
		v.known.add(credential, known)
	}
	switch {
	case now.After(known.principal.Until):
		return nil, ErrExpired
	case now.Before(known.notBefore.Add(-v.config.Leeway)):
		return nil, ErrNotYetValid
	}
	return known.principal, nil
}

// apiKeys returns the currently valid API keys.
func (v *Verifier) apiKeys() apiKeys {
	if v.config.APIKeys == nil {
		return nil
	}
	return *v.config.APIKeys.current.Load()
}

// Revoked reports whether a principal's credential was revoked since it was admitted: its API key
// was removed or changed, or the key that signed its token is no longer in use.
func (v *Verifier) Revoked(principal *Principal) bool {
	switch {
	case principal.origin != nil:
		return v.apiKeys()[principal.apiKey].principal != principal.origin
	case principal.apiKey != "":
		return v.apiKeys()[principal.apiKey].principal != principal
	case principal.signer != nil:
		return !v.config.Keys.holds(principal.signer)
	}
	return false
}

// verify verifies a token except for its times, which are checked at each use.
func (v *Verifier) verify(ctx context.Context, text string) (verified, error) {
	token, err := parseToken(text)
	if err != nil {
		return verified{}, badToken("%w", err)
	}
	if token.claims.issuer != v.config.Issuer {
		return verified{}, badToken("wrong issuer: iss is %.*q", maxQuoted, token.claims.issuer)
	}
	if !slices.Contains(token.claims.audience, v.config.Audience) {
		return verified{}, badToken("wrong audience: aud is %.*q", maxQuoted, strings.Join(token.claims.audience, " "))
	}
	keys, key := v.config.Keys.find(ctx, token.keyID)
	switch {
	case key == nil:
		return verified{}, badToken("unknown key: kid is %.*q", maxQuoted, token.keyID)
	case token.algorithm != string(key.algorithm):
		return verified{}, badToken("wrong algorithm: alg is %.*q, and that of key %.*q is %s", maxQuoted,
			token.algorithm, maxQuoted, key.id, key.algorithm)
	case !key.verify(text):
		return verified{}, badToken("invalid signature: it is not one of key %.*q", maxQuoted, key.id)
	}
	principal, err := NewPrincipal(token.claims.subject, token.claims.tenants, token.claims.rights)
	if err != nil {
		return verified{}, badToken("invalid claims: %w", err)
	}
	principal.Until, principal.signer = token.claims.expires.Add(v.config.Leeway), key
	return verified{principal: principal, notBefore: token.claims.notBefore, keys: keys}, nil
}

// badToken returns an error that wraps ErrBadToken, with the reason.
func badToken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadToken, fmt.Errorf(format, args...))
}
