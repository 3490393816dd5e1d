package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	// Errors of the certificates of clients.
	ErrBadCertificate     = errors.New("the client's certificate is not accepted as a credential")
	ErrExpiredCertificate = errors.New("the client's certificate has expired")
	ErrUnknownStatus      = errors.New(
		"it is not known whether the client's certificate is revoked: its authority's list has expired or is missing",
	)
	ErrCertificateOfBrowser = errors.New(
		"the client's certificate is no credential for requests of a browser: send `authorization: Bearer TOKEN`",
	)
)

// Public returns the public error of a credential's error.
func Public(err error) error {
	for _, known := range []error{
		ErrNoCredential, ErrManyCredentials, ErrExpired, ErrNotYetValid, ErrRevoked, ErrBadTicket, ErrExpiredTicket,
		ErrTwoCredentials, ErrBadCertificate, ErrExpiredCertificate, ErrCertificateOfBrowser,
		ErrUnknownStatus,
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
	// MaxTokenLifetime is the longest lifetime of a token that can be accepted.
	MaxTokenLifetime = 366 * 24 * time.Hour
	// maxQuoted bounds the characters that an error quotes of a token.
	maxQuoted = 64
	anyTenant = "*"
)

// Config configures the accepted credentials.
type Config struct {
	// Issuers are the issuers of the accepted tokens.
	Issuers []IssuerConfig
	// Authorities are the authorities of the accepted certificates of clients.
	Authorities []AuthorityConfig
	// APIKeys are the accepted API keys; nil: none.
	APIKeys *APIKeyRing
	// Leeway is the permitted difference of clocks. 0: [DefaultLeeway].
	Leeway time.Duration
	// Revocations is the list of revoked tokens of the settings; nil: there is none.
	Revocations *RevocationList
	// MaxLifetime bounds the time for which a token is valid, from iat and from now on, so that its
	// revocation need not be stored longer. 0: [MaxTokenLifetime].
	MaxLifetime time.Duration
}

// Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	config  Config
	issuers map[string]*trusted // by iss
	known   *tokenCache
	revoked revoked

	authorities  []*authority
	certificates *tokenCache // verified certificates, by authority and fingerprint

	issuing     sync.Mutex              // serializes changes of the issued API keys
	issued      atomic.Pointer[apiKeys] // the valid API keys that the platform has issued
	revisions   map[string]uint64       // those of their records
	issuedAway  time.Time               // since when they are not received; zero: they are
	issuedBytes atomic.Int64            // their memory, estimated
}

// NewVerifier returns a verifier, or an error if the configuration is unsafe.
func NewVerifier(config Config) (*Verifier, error) {
	if len(config.Issuers) == 0 && config.APIKeys == nil {
		return nil, errors.New("auth: neither issuers of tokens nor API keys are configured")
	}
	var names []string
	for _, authority := range config.Authorities {
		names = append(names, authority.Name)
	}
	issuers, err := trust(config.Issuers, names...)
	if err != nil {
		return nil, err
	}
	authorities, err := trustAuthorities(config.Authorities, issuers)
	if err != nil {
		return nil, err
	}
	config.Leeway = cmp.Or(config.Leeway, DefaultLeeway)
	config.MaxLifetime = cmp.Or(config.MaxLifetime, MaxTokenLifetime)
	v := &Verifier{
		config:       config,
		issuers:      issuers,
		known:        newTokenCache(),
		authorities:  authorities,
		certificates: newTokenCache(),
	}
	v.issued.Store(&apiKeys{})
	v.revoked.sources, v.revoked.away = map[string]*Revocations{}, map[string]time.Time{}
	if config.Revocations != nil {
		v.SetRevocations(RevocationsFile, config.Revocations.current)
	}
	return v, nil
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
		return v.authenticateKey(credential, now)
	}
	known, ok := v.known.get(credential)
	if !ok || !known.holds() {
		var err error
		if known, err = v.verify(ctx, credential); err != nil {
			return nil, err
		}
		v.known.add(credential, known)
	}
	switch {
	case known.refused != nil:
		return nil, known.refused
	case now.After(known.principal.Until):
		return nil, ErrExpired
	case v.revoked.covers(known.principal):
		return nil, ErrRevoked
	case now.Before(known.notBefore.Add(-v.config.Leeway)):
		return nil, ErrNotYetValid
	case known.principal.Until.Sub(now) > v.config.MaxLifetime+2*v.config.Leeway:
		return nil, badToken("exp is more than %v from now", v.config.MaxLifetime)
	case known.principal.issued != 0 &&
		known.principal.Until.Sub(time.UnixMilli(known.principal.issued)) > v.config.MaxLifetime+2*v.config.Leeway:
		// It would be accepted near its end, when its revocation is no longer stored.
		return nil, badToken("exp is more than %v after iat", v.config.MaxLifetime)
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

// Revoked reports whether a principal's credential was revoked since it was admitted: its API key was removed or
// changed, its token or certificate was revoked, or the key that signed its token, or the authority of its certificate,
// is no longer in use.
func (v *Verifier) Revoked(principal *Principal) bool {
	switch {
	case principal.origin != nil:
		key, _ := v.apiKey(principal.apiKey)
		return key.principal != principal.origin
	case principal.apiKey != "":
		key, _ := v.apiKey(principal.apiKey)
		return key.principal != principal
	case principal.authority != nil:
		certificates := principal.authority.Certificates
		return !certificates.holds(principal.root) || v.revoked.covers(principal) ||
			certificates.status(principal.chain, time.Now()) != nil
	case principal.signer != nil:
		return !principal.issuer.Keys.holds(principal.signer) || v.revoked.covers(principal)
	}
	return false
}

// verify verifies a token except for its times, which are checked at each use. The token's iss
// determines the issuer, and only that issuer's keys verify the token.
func (v *Verifier) verify(ctx context.Context, text string) (verified, error) {
	token, err := parseToken(text)
	if err != nil {
		return verified{}, badToken("%w", err)
	}
	issuer := v.issuers[token.claims.issuer]
	if issuer == nil {
		return verified{}, badToken("wrong issuer: iss is %.*q", maxQuoted, token.claims.issuer)
	}
	if !issuer.mapsAudience() {
		if err := issuer.checkAudience(token.claims.audience); err != nil {
			return verified{}, err
		}
	}
	keys, key := issuer.Keys.find(ctx, token.keyID)
	switch {
	case key == nil:
		return verified{}, badToken("unknown key: kid is %.*q", maxQuoted, token.keyID)
	case token.algorithm != string(key.algorithm):
		return verified{}, badToken("wrong algorithm: alg is %.*q, and that of key %.*q is %s", maxQuoted,
			token.algorithm, maxQuoted, key.id, key.algorithm)
	case !key.verify(text):
		return verified{}, badToken("invalid signature: it is not one of key %.*q", maxQuoted, key.id)
	}
	principal, size, err := issuer.principal(ctx, token)
	if err != nil {
		if issuer.Mapping == nil || ctx.Err() != nil {
			return verified{}, err
		}
		// The evaluation costs more than a verification: its result is cached under the subject.
		principal = &Principal{Subject: issuer.label() + ":" + token.claims.subject}
	}
	principal.Until, principal.issuer, principal.signer = token.claims.expires.Add(v.config.Leeway), issuer, key
	principal.iss, principal.tokenID, principal.issued = issuer.Issuer, token.claims.id, token.claims.issued
	return verified{
		principal: principal,
		notBefore: token.claims.notBefore,
		keys:      keys,
		mapped:    size,
		refused:   err,
	}, nil
}

// checkAudience returns an error if a token for the audiences is not for this gateway.
func (t *trusted) checkAudience(audience []string) error {
	for _, accepted := range t.Audiences {
		if slices.Contains(audience, accepted) {
			return nil
		}
	}
	return badToken("wrong audience: aud is %.*q", maxQuoted, strings.Join(audience, " "))
}

// principal returns the principal of a token whose signature has been verified, and the bytes that
// its claims are mapped to.
func (t *trusted) principal(ctx context.Context, token *token) (*Principal, int, error) {
	if t.mapsAudience() {
		audience, err := t.Mapping.audienceOf(ctx, token)
		if err != nil {
			return nil, 0, badToken("%w", err)
		}
		if err := t.checkAudience(audience); err != nil {
			return nil, 0, err
		}
	}
	out, err := t.mapClaims(ctx, token)
	if err != nil {
		return nil, 0, badToken("%w", err)
	}
	subject, err := t.subject(out.subject)
	if err != nil {
		return nil, 0, badToken("malformed claims: %w", err)
	}
	principal, err := NewPrincipal(subject, out.tenants, out.rights)
	if err != nil {
		if t.Mapping != nil {
			err = &MappingError{"tenants, claims.rights", "they yield what is no name of a tenant, or no right"}
		}
		return nil, 0, badToken("invalid claims: %w", err)
	}
	return principal, out.size(), nil
}

// badToken returns an error that wraps ErrBadToken, with the reason.
func badToken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadToken, fmt.Errorf(format, args...))
}
