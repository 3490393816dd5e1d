package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/credentials"
)

// AuthenticateCertificate returns the principal of the certificate that a client has presented, given its verified
// chains, at the time now. Certificates are valid for at most [MaxTokenLifetime], so that their revocation need not be
// stored longer. Errors: [ErrNoCredential] if no authority of the configuration has issued it, [ErrBadCertificate],
// [ErrExpiredCertificate], [ErrRevoked] and [ErrUnknownStatus].
func (v *Verifier) AuthenticateCertificate(
	ctx context.Context, now time.Time, chains [][]*x509.Certificate,
) (*Principal, error) {
	issuer, candidates := v.authorityOf(chains)
	if issuer == nil {
		return nil, ErrNoCredential
	}
	leaf := candidates[0][0]
	key := issuer.Name + ":" + fingerprint(leaf)
	known, ok := v.certificates.get(key)
	if !ok {
		known = v.verifyCertificate(ctx, issuer, leaf)
		if known.refused != nil {
			if ctx.Err() == nil {
				v.certificates.add(key, known)
			}
			return nil, known.refused
		}
	}
	switch {
	case known.refused != nil:
		return nil, known.refused
	case ok && v.checkCertificate(known.principal, now) == nil:
		return known.principal, nil
	}
	// It was not verified before, or with another chain: its authority was removed or revoked, or has expired since.
	var first error
	mapped := known.principal
	for i, chain := range candidates {
		p := mapped.through(chain)
		err := v.checkCertificate(p, now)
		if i == 0 || err == nil {
			known.principal = p
		}
		if err == nil {
			v.certificates.add(key, known)
			return p, nil
		}
		if first == nil {
			first = err
		}
	}
	if !ok { // the evaluation of the mapping costs more than the rest of the pipeline
		v.certificates.add(key, known)
	}
	return nil, first
}

// maxChains bounds the chains of a certificate that are checked.
const maxChains = 8

// authorityOf returns the authority of the configuration that has issued a certificate, and the chains to it, the
// shortest one first: the nearest authority decides. nil: none has.
func (v *Verifier) authorityOf(chains [][]*x509.Certificate) (issuer *authority, candidates [][]*x509.Certificate) {
	for _, authority := range v.authorities {
		for _, c := range chains {
			if authority.issued(c) && (candidates == nil || len(c) < len(candidates[0])) {
				issuer, candidates = authority, [][]*x509.Certificate{c}
			}
		}
	}
	if issuer == nil {
		return nil, nil
	}
	for _, c := range chains {
		if issuer.issued(c) && !slices.Equal(c, candidates[0]) && len(candidates) < maxChains {
			candidates = append(candidates, c)
		}
	}
	return issuer, candidates
}

// issued reports whether a chain ends with a certificate of the authority, in one step if it must be direct.
func (a *authority) issued(chain []*x509.Certificate) bool {
	// A client cannot be its own authority.
	return len(chain) > 1 && (!a.Direct || len(chain) == 2) && a.Certificates.holds(chain[len(chain)-1])
}

// checkCertificate returns an error if the principal's certificate is not accepted at the time now.
func (v *Verifier) checkCertificate(p *Principal, now time.Time) error {
	switch {
	case p.root == nil || !p.authority.Certificates.holds(p.root):
		return ErrNoCredential
	case now.After(p.Until):
		return ErrExpiredCertificate
	case v.revoked.covers(p):
		return ErrRevoked
	}
	return p.authority.Certificates.status(p.chain, now)
}

// through returns the principal of a certificate with the chain to its authority.
func (p *Principal) through(chain []*x509.Certificate) *Principal {
	out := *p
	out.Until, out.root, out.chain = validUntil(chain), chain[len(chain)-1], chainIDs(chain)
	return &out
}

// verifyCertificate maps a certificate to its principal. A refusal is a part of the result, to be cached as well: the
// evaluation costs more than the rest of the pipeline.
func (v *Verifier) verifyCertificate(
	ctx context.Context, issuer *authority, leaf *x509.Certificate,
) verified {
	out := verified{principal: &Principal{Subject: issuer.Name + ":"}}
	var values mapped
	values, out.refused = issuer.Mapping.all(ctx, claimsOf(leaf))
	if out.refused == nil {
		out.mapped = values.size()
		if _, err := tokenSubject(values.subject, nil); err != nil { // it must be visible
			out.refused = &MappingError{"subject", "it yields no visible text of up to 255 characters"}
		} else if out.principal, err = NewPrincipal(
			issuer.Name+":"+values.subject, values.tenants, values.rights,
		); err != nil {
			out.principal = &Principal{Subject: issuer.Name + ":"}
			out.refused = &MappingError{"tenants, claims.rights", "they yield what is no name of a tenant, or no right"}
		}
	}
	if out.refused == nil && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		out.refused = errors.New("its extended key usage does not name client authentication")
	}
	if lifetime := leaf.NotAfter.Sub(leaf.NotBefore); out.refused == nil && lifetime > MaxTokenLifetime+time.Hour {
		out.refused = fmt.Errorf("it is valid for %v, and %v is the most", lifetime, MaxTokenLifetime)
	}
	if out.refused != nil {
		out.refused = fmt.Errorf("%w: %w", ErrBadCertificate, out.refused)
	}
	p := out.principal
	p.authority, p.iss = issuer, issuer.iss
	p.tokenID, p.issued = credentials.CertificateSerial(leaf.SerialNumber), leaf.NotBefore.UnixMilli()
	return out
}

// validUntil returns when the first certificate of a chain expires.
func validUntil(chain []*x509.Certificate) time.Time {
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return first.NotAfter
}

// claimsOf returns the variable claims of a certificate. Texts and lists that it does not have are empty.
func claimsOf(cert *x509.Certificate) map[string]any {
	uris := make([]string, len(cert.URIs))
	for i, uri := range cert.URIs {
		uris[i] = uri.String()
	}
	ips := make([]string, len(cert.IPAddresses))
	for i, ip := range cert.IPAddresses {
		ips[i] = ip.String()
	}
	list := func(texts []string) []string { return append([]string{}, texts...) }
	return map[string]any{
		"common_name":   cert.Subject.CommonName,
		"organizations": list(cert.Subject.Organization),
		"units":         list(cert.Subject.OrganizationalUnit),
		"uris":          uris,
		"dns":           list(cert.DNSNames),
		"emails":        list(cert.EmailAddresses),
		"ips":           ips,
		"issuer":        cert.Issuer.CommonName,
		"serial":        credentials.CertificateSerial(cert.SerialNumber),
		"sha256":        fingerprint(cert),
	}
}

// NewCertificateMapping checks the expressions that map certificates of clients to principals: subject, tenants and
// rights, all of which are required. The variable claims has common_name, issuer (its common name), serial and sha256
// (in hexadecimal) as texts, and organizations, units, uris, dns, emails and ips as lists of texts. Errors are joined
// [MappingError]s.
func NewCertificateMapping(config MappingConfig) (*Mapping, error) {
	var missing []string
	for _, e := range [][2]string{{"subject", config.Subject}, {"tenants", config.Tenants}, {"rights", config.Rights}} {
		if e[1] == "" {
			missing = append(missing, e[0])
		}
	}
	switch {
	case len(missing) > 0:
		return nil, &MappingError{strings.Join(missing, ", claims."), "is missing: certificates have no such claims"}
	case config.Audience != "":
		return nil, &MappingError{"audience", "has no effect: certificates have no audience"}
	}
	return NewMapping(config)
}
