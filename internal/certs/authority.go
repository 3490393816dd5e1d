package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// authority signs certificates.
type authority struct {
	pair

	former []*x509.Certificate // that are trusted too
}

// openAuthority returns the authority of the directory, and makes one if there is none.
func (c Config) openAuthority(out io.Writer) (*authority, error) {
	path, keyPath := filepath.Join(c.Dir, authorities), filepath.Join(c.Dir, authorityKey)
	trusted, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	now, err := readPair(path, keyPath)
	switch {
	case err != nil:
		return nil, err
	case now == nil && len(trusted) > 0 && !c.NewAuthority:
		return nil, fmt.Errorf("%s: the key of %s is missing: make a new authority (--new-authority)", keyPath, path)
	case now != nil && !now.cert.IsCA:
		return nil, fmt.Errorf("%s: the first certificate is no authority", path)
	}
	if now == nil || c.NewAuthority {
		if now, err = newPair(&x509.Certificate{
			Subject: pkix.Name{
				CommonName: "headgate authority " + time.Now().UTC().Format(time.DateOnly),
			},
			IsCA:                  true,
			BasicConstraintsValid: true,
			MaxPathLenZero:        true, // it signs no further authority
			NotAfter:              time.Now().Add(authorityTTL),
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}, nil); err != nil {
			return nil, err
		}
		trusted = append([]*x509.Certificate{now.cert}, trusted...)
		if _, err := fmt.Fprintf(out, "authority: new, until %s: %s\n", now.cert.NotAfter.Format(time.DateOnly),
			path); err != nil {
			return nil, err
		}
	}
	a := &authority{pair: *now}
	for _, cert := range trusted[1:] {
		if time.Now().Before(cert.NotAfter) {
			a.former = append(a.former, cert)
		}
	}
	if c.ForgetAuthorities {
		if err := c.forget(a); err != nil {
			return nil, err
		}
	}
	if err := a.writeKey(keyPath); err != nil {
		return nil, err
	}
	return a, replaceFile(path, a.bundle())
}

// forget stops trusting former authorities, if no certificate of the directory is of one of them.
func (c Config) forget(a *authority) error {
	found, err := filepath.Glob(filepath.Join(c.Dir, "*", certFile))
	if err != nil {
		return err
	}
	for _, path := range found {
		certs, err := readCertificates(path)
		if err != nil {
			return err
		}
		if len(certs) > 0 && !a.signed(certs[0]) {
			return fmt.Errorf("%s is of a former authority: issue it again first, and distribute it", path)
		}
	}
	a.former = nil
	return nil
}

// signed reports whether the authority has signed a certificate.
func (a *authority) signed(cert *x509.Certificate) bool {
	return cert.CheckSignatureFrom(a.cert) == nil
}

// bundle returns the trusted authorities as a file.
func (a *authority) bundle() []byte {
	text := encode("CERTIFICATE", a.cert.Raw)
	for _, cert := range a.former {
		text = append(text, encode("CERTIFICATE", cert.Raw)...)
	}
	return text
}

// readCertificates returns the certificates of a file, none if it does not exist.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return certs, nil
}
