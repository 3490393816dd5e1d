package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config describes the certificates of a directory:
//
//	DIR/ca.crt, ca.key            the trusted authorities, the one that signs first, and its key
//	DIR/NAME/tls.crt, tls.key     the certificate of a role, and its key
//	DIR/NAME/ca.crt               a copy of the trusted authorities, for the processes of the role
//
// Keys are readable by their owner alone. The names are those of Kubernetes's secrets for TLS.
type Config struct {
	Dir string
	// Names are NAME=HOST,HOST: a role, or another server (nats, postgres), and the DNS names ("*." begins a
	// wildcard) and IP addresses under which its processes are reached. Without hosts, it is a client alone.
	Names []string
	// Domain is the trust domain of the roles' URIs.
	Domain string
	// TTL is how long certificates are valid, at most as long as their authority.
	TTL time.Duration
	// Renew issues all certificates again. Otherwise those are that are missing, invalid, past two thirds of their
	// time, of other hosts or of a former authority.
	Renew bool
	// NewAuthority makes an authority that signs from then on, beside the former ones, which stay trusted, and
	// issues only missing certificates: processes must trust the new authority before they meet its certificates.
	NewAuthority bool
	// ForgetAuthorities trusts the newest authority alone. Error: a certificate of a former one is in use.
	ForgetAuthorities bool
}

// authorityTTL is how long an authority is valid.
const authorityTTL = 10 * 365 * 24 * time.Hour

// skew is the time before now from which certificates are valid, for clocks that are behind.
const skew = 5 * time.Minute

// Names of files.
const (
	authorities  = "ca.crt"
	authorityKey = "ca.key"
	certFile     = "tls.crt"
	keyFile      = "tls.key"
)

var (
	validName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	validHost   = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	validDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`) // SPIFFE-ID §2.1
)

// subject is what a certificate is for.
type subject struct {
	name string
	uri  *url.URL
	dns  []string
	ips  []net.IP
}

// Issue makes the authority and the certificates that are missing, and issues again the ones that must be. It may be
// repeated at any time, and writes to out what it has done. Errors: the configuration is not valid, or a file cannot
// be read or written.
func Issue(c Config, out io.Writer) error {
	subjects, err := c.subjects()
	if err != nil {
		return err
	}
	a, err := c.openAuthority(out)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		if err := c.certificate(a, s, out); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if left := time.Until(a.cert.NotAfter); left < c.TTL {
		_, err = fmt.Fprintf(
			out, "the authority expires on %s, and with it the certificates: replace it (--new-authority)\n",
			a.cert.NotAfter.Format(time.DateOnly),
		)
	}
	return err
}

// subjects checks the configuration.
func (c Config) subjects() ([]subject, error) {
	if !validDomain.MatchString(c.Domain) {
		return nil, fmt.Errorf("domain %q: want lower-case letters, digits, dots, hyphens and underscores", c.Domain)
	}
	if c.TTL < time.Hour || c.TTL > authorityTTL {
		return nil, fmt.Errorf("ttl %v: want one hour to %v", c.TTL, authorityTTL)
	}
	if c.NewAuthority && (c.Renew || c.ForgetAuthorities) {
		return nil, errors.New(
			"a new authority is made by itself: processes must trust it before it signs (repeat the " +
				"command without --new-authority once they have the new ca.crt)",
		)
	}
	var subjects []subject
	for _, text := range c.Names {
		name, hosts, _ := strings.Cut(text, "=")
		if !validName.MatchString(name) {
			return nil, fmt.Errorf("name %q: want ROLE=HOST,HOST with a role of lower-case letters, digits and hyphens",
				text)
		}
		if slices.ContainsFunc(subjects, func(s subject) bool { return s.name == name }) {
			return nil, fmt.Errorf("name %q: %s is named twice: name all of its hosts together", text, name)
		}
		s := subject{name: name, uri: &url.URL{Scheme: "spiffe", Host: c.Domain, Path: "/role/" + name}}
		for host := range strings.SplitSeq(hosts, ",") {
			switch ip := net.ParseIP(host); {
			case ip != nil:
				s.ips = append(s.ips, ip)
			case validHost.MatchString(host) && len(host) <= 253:
				s.dns = append(s.dns, host)
			case host != "" || strings.Contains(hosts, ","):
				return nil, fmt.Errorf("name %q: %q is no host in lower case and no IP address", text, host)
			}
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}

// certificate issues the certificate of a subject if it must, and copies the authorities beside it.
func (c Config) certificate(a *authority, s subject, out io.Writer) error {
	dir := filepath.Join(c.Dir, s.name)
	now, err := readPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return err
	}
	if why := c.outdated(a, s, now); why != "" {
		pair, err := c.sign(a, s)
		if err != nil {
			return err
		}
		if err := pair.write(filepath.Join(dir, certFile), filepath.Join(dir, keyFile)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s: %s, until %s: %s\n", s.name, why,
			pair.cert.NotAfter.UTC().Format(time.DateOnly), dir); err != nil {
			return err
		}
	}
	return replaceFile(filepath.Join(dir, authorities), a.bundle())
}

// outdated returns why a certificate must be issued, "" if it stays.
func (c Config) outdated(a *authority, s subject, now *pair) string {
	switch {
	case now == nil:
		return "new"
	case c.NewAuthority:
		return "" // until the processes trust the authority
	case c.Renew:
		return "renewed"
	case !a.signed(now.cert):
		return "renewed under the new authority"
	case !s.of(now.cert):
		return "renewed for other hosts"
	case time.Since(now.cert.NotBefore) > now.cert.NotAfter.Sub(now.cert.NotBefore)*2/3:
		return "renewed before its end"
	}
	return ""
}

// of reports whether a certificate is for the subject, and no more.
func (s subject) of(cert *x509.Certificate) bool {
	return len(cert.URIs) == 1 && cert.URIs[0].String() == s.uri.String() && slices.Equal(cert.DNSNames, s.dns) &&
		slices.EqualFunc(cert.IPAddresses, s.ips, net.IP.Equal)
}

// sign returns a new key with its certificate. Both sides of connections use it: nodes are clients of NATS, and NATS
// servers of each other.
func (c Config) sign(a *authority, s subject) (*pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.name},
		URIs:        []*url.URL{s.uri},
		DNSNames:    s.dns,
		IPAddresses: s.ips,
		NotAfter:    time.Now().Add(c.TTL),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	return newPair(template, &a.pair)
}

// newPair returns a new key with its certificate, signed by an issuer; nil: by itself.
func newPair(template *x509.Certificate, issuer *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	template.NotBefore = time.Now().Add(-skew)
	if issuer == nil {
		issuer = &pair{cert: template, key: key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return &pair{cert, key}, err
}
