package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// Source reads a document, such as a JWK set (RFC 7517 §5).
type Source func(ctx context.Context) ([]byte, error)

const (
	// maxKeysBytes bounds a JWK set, a discovery document and a file of API keys.
	maxKeysBytes = 1 << 20
	// maxHeaderBytes bounds the headers of a fetched document.
	maxHeaderBytes = 64 << 10
	// fetchTimeout bounds one attempt to read a source.
	fetchTimeout = 5 * time.Second
	// discoveryAge is the time for which a discovery document is used.
	discoveryAge = time.Hour
	// wellKnown is the path of discovery documents (OpenID Connect Discovery §4).
	wellKnown = "/.well-known/openid-configuration"
)

// File returns a source that reads the file at path, up to 1 MiB of it.
func File(path string) Source { return fileUpTo(path, maxKeysBytes) }

// FileOfRevocations returns a source that reads the file at path, up to [MaxRevocationsBytes] of it.
func FileOfRevocations(path string) Source { return fileUpTo(path, MaxRevocationsBytes) }

func fileUpTo(path string, most int) Source {
	return func(context.Context) ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		return readBounded(file, most)
	}
}

// URL returns a source that fetches a document from an address that [CheckURL] accepts, up to 1 MiB.
// Redirects are not followed. roots are the authorities of servers; nil: the system's.
func URL(address string, roots *x509.CertPool) Source {
	client := newClient(roots)
	return func(ctx context.Context) ([]byte, error) {
		if _, err := parseURL(address); err != nil {
			return nil, err
		}
		return fetch(ctx, client, address)
	}
}

// CheckURL returns an error if documents cannot be fetched from the address safely: it must be an
// https URL without user or fragment, or an http one of the loopback interface.
func CheckURL(address string) error {
	_, err := parseURL(address)
	return err
}

func parseURL(address string) (*url.URL, error) {
	parsed, err := url.Parse(address)
	switch {
	case err != nil || parsed.Hostname() == "":
		return nil, fmt.Errorf("%.128q is not a URL with a host", address)
	case parsed.User != nil || parsed.Fragment != "" || strings.Contains(address, "#"):
		return nil, fmt.Errorf("the URL of %s must have neither a user nor a fragment", parsed.Host)
	case parsed.Scheme == "https", parsed.Scheme == "http" && isLoopback(parsed.Hostname()):
		return parsed, nil
	}
	return nil, fmt.Errorf("the URL of %s must begin with https:// (http:// is for the loopback interface)",
		parsed.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// origin returns the origin of a URL (RFC 6454 §4).
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// Discovery describes the discovery of an issuer's keys (OpenID Connect Discovery 1.0).
type Discovery struct {
	// Issuer is the issuer's URL.
	Issuer string
	// KeyOrigins are the origins, as "https://HOST", in addition to the issuer's, from which its
	// discovery document may have the keys fetched.
	KeyOrigins []string
	// Roots are the authorities of the servers; nil: the system's.
	Roots *x509.CertPool
}

// Check returns an error if the discovery cannot be safe.
func (d Discovery) Check() error {
	parsed, err := parseURL(d.Issuer)
	if err != nil {
		return err
	}
	if parsed.RawQuery != "" || strings.Contains(d.Issuer, "?") {
		return errors.New("an issuer's URL has no query (OpenID Connect Discovery §3)")
	}
	for _, allowed := range d.KeyOrigins {
		if err := CheckURL(allowed); err != nil {
			return err
		}
	}
	return nil
}

// Source returns a source of the issuer's key set. The discovery document must name the issuer byte
// for byte, and keys at the issuer's origin or one of KeyOrigins; redirects are not followed.
func (d Discovery) Source() Source {
	s := &discovered{Discovery: d, client: newClient(d.Roots)}
	return s.read
}

// discovered reads the keys of an issuer. Its methods may be called concurrently.
type discovered struct {
	Discovery

	client *http.Client

	mu      sync.Mutex
	keys    string // the address of the keys; "": not known
	foundAt time.Time
}

// read reads the key set at the address that the discovery document names.
func (s *discovered) read(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == "" || time.Since(s.foundAt) > discoveryAge {
		s.keys = ""
		address, err := s.discover(ctx)
		if err != nil {
			return nil, err
		}
		s.keys, s.foundAt = address, time.Now()
	}
	data, err := fetch(ctx, s.client, s.keys)
	if err != nil {
		s.keys = "" // they may have moved
	}
	return data, err
}

// document returns the issuer's discovery document, which names the issuer.
func (s *discovered) document(ctx context.Context) (members, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	data, err := fetch(ctx, s.client, strings.TrimSuffix(s.Issuer, "/")+wellKnown)
	if err != nil {
		return nil, err
	}
	document, err := parseMembers(data)
	if err != nil {
		return nil, fmt.Errorf("the discovery document of %s: %w", s.Issuer, err)
	}
	issuer, err := document.text("issuer")
	if err != nil || issuer != s.Issuer {
		return nil, fmt.Errorf("the discovery document of %s names another issuer: %.128q", s.Issuer, issuer)
	}
	return document, nil
}

// discover returns the address of the issuer's keys.
func (s *discovered) discover(ctx context.Context) (string, error) {
	document, err := s.document(ctx)
	if err != nil {
		return "", err
	}
	address, err := document.text("jwks_uri")
	if err != nil {
		return "", fmt.Errorf("the discovery document of %s: %w", s.Issuer, err)
	}
	keys, err := parseURL(address)
	if err != nil {
		return "", fmt.Errorf("the discovery document of %s: jwks_uri: %w", s.Issuer, err)
	}
	if !s.mayHold(keys) {
		return "", fmt.Errorf(
			"the discovery document of %s names keys at %s: list that origin in key_origins if they are the issuer's",
			s.Issuer, origin(keys),
		)
	}
	return address, nil
}

// mayHold reports whether an address is of an origin that may have the issuer's keys.
func (s *discovered) mayHold(keys *url.URL) bool {
	return slices.ContainsFunc(append([]string{s.Issuer}, s.KeyOrigins...), func(allowed string) bool {
		parsed, err := url.Parse(allowed)
		return err == nil && origin(parsed) == origin(keys)
	})
}

// newClient returns a client that follows no redirects and retains no connections.
func newClient(roots *x509.CertPool) *http.Client {
	dialer := &net.Dialer{Timeout: fetchTimeout}
	return &http.Client{
		Transport: contextkit.HTTPTransport(&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxHeaderBytes,
		}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch returns the document at the address, up to 1 MiB, within ctx.
func fetch(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(contextkit.PlatformContext(ctx), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, res.Status)
	}
	return readBounded(res.Body, maxKeysBytes)
}

func readBounded(r io.Reader, most int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(data) > most {
		err = tooLarge(most)
	}
	return data, err
}

// tooLarge returns the error of a document of more than most bytes.
func tooLarge(most int) error {
	return fmt.Errorf("it is larger than %d bytes, the most that are read", most)
}
