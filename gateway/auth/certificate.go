package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// AuthenticateCertificate returns the principal of the certificate that a client has presented, given its verified
// chains, at the time now. Certificates are valid for at most [MaxTokenLifetime], so that their revocation need not be
// stored longer. Errors: [ErrNoCredential] if no authority of the configuration has issued it, [ErrBadCertificate],
// [ErrExpiredCertificate] and [ErrRevoked].
func (v *Verifier) AuthenticateCertificate(
	ctx context.Context, now time.Time, chains [][]*x509.Certificate,
) (*Principal, error) {
	issuer, chain := v.authorityOf(chains)
	if issuer == nil {
		return nil, ErrNoCredential
	}
	key := issuer.Name + ":" + fingerprint(chain[0])
	known, ok := v.certificates.get(key)
	// It may have been verified with another chain, whose authority has been removed or which has expired since.
	if !ok || !issuer.Certificates.holds(known.principal.root) ||
		now.After(known.principal.Until) && known.principal.Until.Before(validUntil(chain)) {
		known = v.verifyCertificate(ctx, issuer, chain)
		if known.refused != nil && ctx.Err() != nil {
			return nil, known.refused
		}
		v.certificates.add(key, known)
	}
	switch {
	case known.refused != nil:
		return nil, known.refused
	case now.After(known.principal.Until):
		return nil, ErrExpiredCertificate
	case v.revoked.covers(known.principal):
		return nil, ErrRevoked
	}
	return known.principal, nil
}

// authorityOf returns the first authority of the configuration that has issued a certificate, and the chain to it;
// nil: none has.
func (v *Verifier) authorityOf(chains [][]*x509.Certificate) (issuer *authority, chain []*x509.Certificate) {
	for _, authority := range v.authorities {
		for _, c := range chains {
			// A client cannot be its own authority.
			if len(c) > 1 && (chain == nil || len(c) < len(chain)) && authority.Certificates.holds(c[len(c)-1]) {
				issuer, chain = authority, c
			}
		}
	}
	return issuer, chain
}

// verifyCertificate maps a certificate to its principal. A refusal is a part of the result, to be cached as well: the
// evaluation costs more than the rest of the pipeline.
func (v *Verifier) verifyCertificate(
	ctx context.Context, issuer *authority, chain []*x509.Certificate,
) verified {
	leaf := chain[0]
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
	p.Until, p.authority, p.root = validUntil(chain), issuer, chain[len(chain)-1]
	p.iss, p.tokenID, p.issued = issuer.iss, serial(leaf), leaf.NotBefore.UnixMilli()
	return out
}

// validUntil returns when the first certificate of a chain expires.
func validUntil(chain []*x509.Certificate) time.Time {
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return first.NotAfter
}

// serial returns the serial number of a certificate, in hexadecimal as `openssl x509 -serial` prints it.
func serial(cert *x509.Certificate) string {
	return canonicalSerial(fmt.Sprintf("%X", cert.SerialNumber.Bytes()))
}

// canonicalSerial returns a serial number in hexadecimal as serial does, from any notation of openssl and browsers:
// with colons, in lower case, with leading zeros.
func canonicalSerial(text string) string {
	digits := strings.TrimLeft(strings.ToUpper(strings.ReplaceAll(text, ":", "")), "0")
	if len(digits)%2 == 1 || digits == "" {
		digits = "0" + digits
	}
	if digits == "0" {
		return "00"
	}
	return digits
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
		"serial":        serial(cert),
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
