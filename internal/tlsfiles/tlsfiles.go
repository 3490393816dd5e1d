// Package tlsfiles provides TLS configurations whose certificate, key and authorities come from
// files. A replaced file takes effect within a second, for new handshakes, without a restart.
//
// Invalid files are reported, and the files that were read before stay in use.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files names PEM files.
type Files struct {
	// Cert and Key are this side's certificate, its chain included, and key. Both
	// or neither.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// CA is the authorities that must have signed the peer's certificate. Without it, a server
	// requests no certificate, and a client uses the system's authorities.
	CA string `yaml:"ca"`
}

// lookEvery is the least interval between checks of the files.
const lookEvery = time.Second

// Material is the content of the files when they were last valid. Its methods may be called
// concurrently.
type Material struct {
	files  Files
	report func(error)

	mu     sync.Mutex
	looked time.Time
	stamps [3]stamp
	cert   *tls.Certificate
	roots  *x509.CertPool
}

// stamp identifies a version of a file.
type stamp struct {
	changed time.Time
	size    int64
}

// Open reads the files. It returns an error if they are invalid; report is called with later
// errors.
func Open(files Files, report func(error)) (*Material, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("tls: a certificate needs its key, and a key its certificate")
	}
	m := &Material{files: files, report: report}
	if err := m.read(); err != nil {
		return nil, err
	}
	m.stamps, m.looked = m.look(), time.Now()
	return m, nil
}

// Server returns the configuration of a listener, which requires Cert. If CA is set, clients must
// present a certificate. further, if not nil, returns authorities whose certificates clients may present, too; a
// certificate of no authority is refused.
func (m *Material) Server(further func() []*x509.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, roots := m.current()
			if cert == nil {
				return nil, errors.New("tls: the server has no certificate")
			}
			config := &tls.Config{
				MinVersion:   tls.VersionTLS12,
				NextProtos:   []string{"h2", "http/1.1"},
				Certificates: []tls.Certificate{*cert},
			}
			if roots != nil {
				config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, roots
			}
			if further != nil {
				accept(config, further())
			}
			return config, nil
		},
	}
}

// accept has a listener accept certificates of further authorities; without other ones, clients need none.
func accept(config *tls.Config, further []*x509.Certificate) {
	if len(further) == 0 {
		return
	}
	if config.ClientCAs == nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	} else {
		config.ClientCAs = config.ClientCAs.Clone()
	}
	for _, cert := range further {
		config.ClientCAs.AddCert(cert)
	}
}

// Client returns the configuration for one connection to a server, by its name; "": the host of its
// address.
func (m *Material) Client(serverName string) *tls.Config {
	cert, roots := m.current()
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: serverName}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return config
}

// Certificate returns the certificate in use, nil if there is none, and whether clients must present one.
func (m *Material) Certificate() (leaf *x509.Certificate, mutual bool) {
	cert, roots := m.current()
	if cert == nil {
		return nil, roots != nil
	}
	if leaf = cert.Leaf; leaf == nil && len(cert.Certificate) > 0 {
		leaf, _ = x509.ParseCertificate(cert.Certificate[0]) // it has been read before
	}
	return leaf, roots != nil
}

// current returns the content in use, after a check of the files.
func (m *Material) current() (*tls.Certificate, *x509.CertPool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.looked) >= lookEvery {
		m.looked = time.Now()
		if stamps := m.look(); stamps != m.stamps {
			// Files are replaced one after the other: a pair that does not fit yet is
			// read again at the next look.
			if err := m.read(); err == nil {
				m.stamps = stamps
			} else if m.report != nil {
				m.report(err)
			}
		}
	}
	return m.cert, m.roots
}

func (m *Material) look() (stamps [3]stamp) {
	for i, path := range []string{m.files.Cert, m.files.Key, m.files.CA} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// read reads all files, or returns an error.
func (m *Material) read() error {
	var (
		cert  *tls.Certificate
		roots *x509.CertPool
	)
	if m.files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(m.files.Cert, m.files.Key)
		if err != nil {
			return fmt.Errorf("tls: certificate %s with key %s: %w", m.files.Cert, m.files.Key, err)
		}
		cert = &pair
	}
	if m.files.CA != "" {
		pem, err := os.ReadFile(m.files.CA)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls: %s has no certificate", m.files.CA)
		}
	}
	m.cert, m.roots = cert, roots
	return nil
}
