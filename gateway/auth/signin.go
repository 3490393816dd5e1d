package auth

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// signInRetry is the wait before a discovery document that could not be read is read again.
const signInRetry = 10 * time.Second

// SignInOrigins follows the origins, in addition to the issuer's, of the endpoints that a page calls to sign in and
// out: those of tokens and of their revocation (RFC 8414 §2), as the issuer's discovery document names them. It is safe
// for concurrent use.
type SignInOrigins struct {
	from    *discovered
	current atomic.Pointer[[]string]
}

// SignInOrigins returns the origins of the issuer's endpoints; none are known before [SignInOrigins.Refresh].
func (d Discovery) SignInOrigins() *SignInOrigins {
	return &SignInOrigins{from: &discovered{Discovery: d, client: newClient(d.Roots)}}
}

// Current returns the origins that were read last, sorted, as "https://HOST" with the port unless it is the scheme's
// own.
func (s *SignInOrigins) Current() []string {
	if known := s.current.Load(); known != nil {
		return *known
	}
	return nil
}

// Refresh reads the origins. After an error the known ones stay in use.
func (s *SignInOrigins) Refresh(ctx context.Context) error {
	document, err := s.from.document(ctx)
	if err != nil {
		return err
	}
	issuer, err := parseURL(s.from.Issuer)
	if err != nil {
		return err
	}
	var origins []string
	for _, member := range []string{"token_endpoint", "revocation_endpoint"} {
		if member != "token_endpoint" && document[member] == nil {
			continue // it is optional
		}
		address, err := document.text(member)
		if err != nil {
			return fmt.Errorf("the discovery document of %s: %w", s.from.Issuer, err)
		}
		endpoint, err := parseURL(address)
		if err != nil {
			return fmt.Errorf("the discovery document of %s: %s: %w", s.from.Issuer, member, err)
		}
		if origin(endpoint) != origin(issuer) {
			origins = append(origins, pageOrigin(endpoint))
		}
	}
	slices.Sort(origins)
	origins = slices.Compact(origins)
	s.current.Store(&origins)
	return nil
}

// pageOrigin returns the origin of a URL as browsers write it (RFC 6454 §6.1).
func pageOrigin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	for scheme, port := range map[string]string{"https": ":443", "http": ":80"} {
		if u.Scheme == scheme {
			host = strings.TrimSuffix(host, port)
		}
	}
	return u.Scheme + "://" + host
}

// Run reads the origins each hour until ctx ends, and every 10 s after an error, which it reports.
func (s *SignInOrigins) Run(ctx context.Context, report func(error)) {
	for {
		wait := discoveryAge
		reading, cancel := context.WithTimeout(ctx, fetchTimeout)
		err := s.Refresh(reading)
		cancel()
		if err != nil && ctx.Err() == nil {
			wait = signInRetry
			report(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
