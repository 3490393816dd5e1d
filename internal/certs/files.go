package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// readPair returns the first certificate of a file with its key, nil if there is none, or if they do not belong
// together: the command that wrote them was stopped between the two.
func readPair(certPath, keyPath string) (*pair, error) {
	certText, err := os.ReadFile(certPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	keyText, err := os.ReadFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	read, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, nil //nolint:nilnil,nilerr // see above
	}
	key, ok := read.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no key of an elliptic curve", keyPath)
	}
	return &pair{read.Leaf, key}, nil
}

// write replaces the two files.
func (p *pair) write(certPath, keyPath string) error {
	if err := p.writeKey(keyPath); err != nil {
		return err
	}
	return replaceFile(certPath, encode("CERTIFICATE", p.cert.Raw))
}

func (p *pair) writeKey(path string) error {
	raw, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	return replaceFile(path, encode("PRIVATE KEY", raw))
}

func encode(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// replaceFile writes a file that its owner alone can read, by renaming. A file that has the content is not replaced.
func replaceFile(path string, content []byte) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
