package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/certs"
)

// directory issues certificates into a directory.
type directory struct {
	t      *testing.T
	config certs.Config
}

func newDirectory(t *testing.T) directory {
	t.Helper()
	return directory{t, certs.Config{
		Dir:    filepath.Join(t.TempDir(), "tls"),
		Names:  []string{"gateway=gateway,*.gateways,127.0.0.1", "control"},
		Domain: "example.com",
		TTL:    time.Hour,
	}}
}

// issue repeats the command with a change, and returns what it reports.
func (d directory) issue(change func(*certs.Config)) string {
	d.t.Helper()
	config := d.config
	if change != nil {
		change(&config)
	}
	var out strings.Builder
	if err := certs.Issue(config, &out); err != nil {
		d.t.Fatal(err)
	}
	return out.String()
}

// pair returns the certificate of a name, and the authorities that its processes trust.
func (d directory) pair(name string) (tls.Certificate, *x509.CertPool) {
	d.t.Helper()
	dir := filepath.Join(d.config.Dir, name)
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	text, readErr := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err := errors.Join(err, readErr); err != nil {
		d.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return cert, roots
}

// verifies reports whether processes that trust roots accept a certificate on both sides of connections.
func verifies(cert tls.Certificate, roots *x509.CertPool) bool {
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage},
		}); err != nil {
			return false
		}
	}
	return true
}

func TestIssue_CertificatesNameRoleAndHosts(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	d.issue(nil)
	gateway, roots := d.pair("gateway")
	control, _ := d.pair("control")
	if !verifies(gateway, roots) || !verifies(control, roots) {
		t.Error("the authority does not verify its certificates")
	}
	for _, host := range []string{"gateway", "gateway-1.gateways", "127.0.0.1"} {
		if err := gateway.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
		if control.Leaf.VerifyHostname(host) == nil {
			t.Errorf("control may be reached as %s", host)
		}
	}
	if uris := gateway.Leaf.URIs; len(uris) != 1 || uris[0].String() != "spiffe://example.com/role/gateway" {
		t.Errorf("URIs: %v", uris)
	}
	if gateway.Leaf.IsCA || verifies(gateway, x509.NewCertPool()) {
		t.Error("a role's certificate signs others, or is verified without the authority")
	}
	err := filepath.WalkDir(d.config.Dir, func(path string, entry os.DirEntry, err error) error {
		if info, statErr := entry.Info(); statErr != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), statErr)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A repeated call changes what must be changed, and nothing else.
func TestIssue_RenewsWhatIsOutdated(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	d.issue(nil)
	if out := d.issue(nil); out != "" {
		t.Errorf("valid certificates: %s", out)
	}
	add := func(c *certs.Config) { c.Names[1] = "control=control" }
	if out := d.issue(add); !strings.Contains(out, "control: renewed for other hosts") ||
		strings.Contains(out, "gateway") {
		t.Errorf("another host: %s", out)
	}
	d.issue(func(c *certs.Config) { c.Renew, c.TTL = true, 10*time.Hour })
	long, _ := d.pair("gateway")
	if time.Until(long.Leaf.NotAfter) < 9*time.Hour {
		t.Errorf("renewed until %v", long.Leaf.NotAfter)
	}
	// The command that was stopped between the two files.
	if err := os.WriteFile(filepath.Join(d.config.Dir, "gateway", "tls.key"), key(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := d.issue(nil); !strings.Contains(out, "gateway: new") {
		t.Errorf("a key of another certificate: %s", out)
	}
}

// key returns a private key of no certificate.
func key(t *testing.T) []byte {
	t.Helper()
	d := newDirectory(t)
	d.issue(nil)
	text, err := os.ReadFile(filepath.Join(d.config.Dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// At each step of a replaced authority, processes with the files of that step and of the one before accept each other.
func TestIssue_AuthorityIsReplacedWithoutAnInterruption(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	d.issue(nil)
	first, roots := d.pair("gateway")
	before, trusted := first, roots
	for _, step := range []struct {
		name   string
		change func(*certs.Config)
	}{
		{"another authority", func(c *certs.Config) { c.NewAuthority = true }},
		{"its certificates", nil},
		{"the former one is forgotten", func(c *certs.Config) { c.ForgetAuthorities = true }},
	} {
		d.issue(step.change)
		now, nowTrusted := d.pair("gateway")
		if !verifies(now, trusted) || !verifies(before, nowTrusted) || !verifies(now, nowTrusted) {
			t.Errorf("%s: files of this step and of the one before do not accept each other", step.name)
		}
		before, trusted = now, nowTrusted
	}
	if verifies(first, trusted) {
		t.Error("a certificate of the forgotten authority is accepted")
	}
}

func TestIssue_RefusesWhatWouldInterrupt(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	d.issue(nil)
	d.issue(func(c *certs.Config) { c.NewAuthority = true })
	for want, change := range map[string]func(*certs.Config){
		"is of a former authority": func(c *certs.Config) { c.ForgetAuthorities, c.Names = true, nil },
		"made by itself":           func(c *certs.Config) { c.NewAuthority, c.Renew = true, true },
		"is named twice":           func(c *certs.Config) { c.Names = []string{"gateway=a", "gateway=b"} },
		"no host":                  func(c *certs.Config) { c.Names = []string{"gateway=a,,b"} },
		"want ROLE":                func(c *certs.Config) { c.Names = []string{"../gateway=a"} },
		"domain":                   func(c *certs.Config) { c.Domain = "Example.com/role/gateway" },
		"ttl":                      func(c *certs.Config) { c.TTL = time.Second },
	} {
		config := d.config
		change(&config)
		if err := certs.Issue(config, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := os.Remove(filepath.Join(d.config.Dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := certs.Issue(d.config, io.Discard); err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("without the authority's key: %v", err)
	}
	// A lost key is replaced as an authority is.
	d.issue(func(c *certs.Config) { c.NewAuthority = true })
	text, err := os.ReadFile(filepath.Join(d.config.Dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	certificates := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificates++
	}
	if certificates != 3 {
		t.Errorf("%d authorities are trusted, want the lost two and the new one", certificates)
	}
}
