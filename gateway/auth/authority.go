package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/headgate/headgate/internal/credentials"
)

// AuthorityConfig configures an authority whose certificates clients may present as their credential.
type AuthorityConfig struct {
	// Name begins the subjects of the authority's principals, as in "NAME:SUBJECT". No issuer and no other
	// authority has it.
	Name string
	// Certificates are those of the authority.
	Certificates *Authority
	// Direct rejects certificates that none of Certificates has signed itself, as an intermediate authority below one
	// of them has.
	Direct bool
	// Mapping maps the certificates of clients to their principals, see [NewCertificateMapping].
	Mapping *Mapping
}

// maxAuthorities bounds the certificates of an authority: all of them are in the handshakes with clients.
const maxAuthorities = 32

// Authority has the certificates (X.509) of an authority, reloaded from their source. It is safe for concurrent use.
type Authority struct {
	document document
	current  atomic.Pointer[[]*x509.Certificate]
	lists    *listsOf // its revocation lists; nil: there are none
}

// OpenAuthority reads the certificates of an authority in PEM; it returns an error if they are invalid.
func OpenAuthority(ctx context.Context, source Source) (*Authority, error) {
	a := &Authority{document: document{source: source, what: "certificates of an authority"}}
	if err := a.document.open(ctx, a.use); err != nil {
		return nil, err
	}
	return a, nil
}

// Run reloads the certificates and revocation lists until ctx ends. It calls changed after every change, and report
// after failures: the current ones then stay in use. Both may be called concurrently.
func (a *Authority) Run(ctx context.Context, changed func(), report func(error)) {
	var running sync.WaitGroup
	if a.lists != nil {
		running.Go(func() { a.followLists(ctx, changed, report) })
	}
	a.document.follow(ctx, a.use, func() {
		a.reuseLists(report)
		changed()
	}, report)
	running.Wait()
}

// use replaces the certificates with those of the document.
func (a *Authority) use(text []byte) error {
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("auth: certificate %d of an authority: %w", len(list)+1, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA { // any client could have it
			return fmt.Errorf("auth: certificate %d (%.*q) is not one of an authority", len(list)+1, maxQuoted,
				cert.Subject.CommonName)
		}
		if list = append(list, cert); len(list) > maxAuthorities {
			return fmt.Errorf("auth: an authority has more than %d certificates", maxAuthorities)
		}
	}
	if len(list) == 0 {
		return errors.New("auth: an authority has no certificate (PEM)")
	}
	a.current.Store(&list)
	return nil
}

// holds reports whether the certificate is still one of the authority.
func (a *Authority) holds(cert *x509.Certificate) bool {
	return slices.ContainsFunc(*a.current.Load(), cert.Equal)
}

// byFingerprint returns the certificate with a fingerprint, nil if the authority has none.
func (a *Authority) byFingerprint(hash string) *x509.Certificate {
	for _, cert := range *a.current.Load() {
		if fingerprint(cert) == hash {
			return cert
		}
	}
	return nil
}

// fingerprint returns the SHA-256 hash of a certificate, in hexadecimal.
func fingerprint(cert *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(cert.Raw)) }

// authority is an authority whose certificates are accepted.
type authority struct {
	AuthorityConfig

	iss string // its name in revocations
}

// CertificatesOf returns the name of an authority as the issuer of its certificates, as in revocations.
func CertificatesOf(name string) string { return credentials.CertificatesIssuer + name }

// trustAuthorities returns the authorities. taken are the names of issuers.
func trustAuthorities(configs []AuthorityConfig, issuers map[string]*trusted) ([]*authority, error) {
	taken := map[string]bool{}
	for _, issuer := range issuers {
		taken[issuer.Name] = true
	}
	var out []*authority
	for _, config := range configs {
		iss := CertificatesOf(config.Name)
		if err := CheckIssuerName(config.Name); err != nil {
			return nil, fmt.Errorf("auth: certificates: name %w", err)
		}
		switch {
		case config.Name == "", config.Certificates == nil, config.Mapping == nil:
			return nil, errors.New("auth: certificates: name, authority and mapping must be configured")
		case taken[config.Name], issuers[iss] != nil:
			return nil, fmt.Errorf("auth: certificates: an issuer or authority has the name %q too", config.Name)
		}
		taken[config.Name] = true
		out = append(out, &authority{AuthorityConfig: config, iss: iss})
	}
	return out, nil
}

// ClientAuthorities returns the certificates of the authorities whose certificates clients may present as their
// credential.
func (v *Verifier) ClientAuthorities() []*x509.Certificate {
	var all []*x509.Certificate
	for _, authority := range v.authorities {
		all = append(all, *authority.Certificates.current.Load()...)
	}
	return all
}
