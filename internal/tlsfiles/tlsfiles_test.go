package tlsfiles_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// handshake connects a client to a server over loopback and returns the
// server's certificate.
func handshake(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = conn.Write([]byte("!"))
			_ = conn.Close()
		}
		done <- err
	}()
	defer func() { <-done }()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// In TLS 1.3 a client learns only afterwards that its certificate is refused.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func open(t *testing.T, files tlsfiles.Files, failures *atomic.Int64) *tlsfiles.Material {
	t.Helper()
	m, err := tlsfiles.Open(files, func(error) { failures.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFiles_BothSidesAreVerifiedWithAnAuthority(t *testing.T) {
	ours, theirs := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	dir := t.TempDir()
	server, client, stranger := ours.Issue(t, dir,
		"server"), ours.Issue(t, dir, "client"), theirs.Issue(t, dir, "stranger")
	stranger.CA = server.CA // it knows whom to trust, and is not trusted itself
	anyone := tlsfiles.Files{CA: server.CA}
	open1 := server
	open1.CA = "" // asks for no certificate
	for name, rule := range map[string]struct {
		server, client tlsfiles.Files
		accepted       bool
	}{
		"a client of the authority":          {server, client, true},
		"a client of another":                {server, stranger, false},
		"a client without a certificate":     {server, anyone, false},
		"anybody, where none is asked for":   {open1, anyone, true},
		"a server of an authority not known": {open1, tlsfiles.Files{CA: theirs.Issue(t, dir, "x").CA}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var failures atomic.Int64
			got, err := handshake(t, open(t, rule.server, &failures).Server(nil),
				open(t, rule.client, &failures).Client("server"))
			if (err == nil) != rule.accepted || rule.accepted && got.Subject.CommonName != "server" {
				t.Errorf("accepted %v, want %v: %v", err == nil, rule.accepted, err)
			}
		})
	}
}

func TestFiles_ReplacedOnesApplyWithoutARestart(t *testing.T) {
	authority := tlstest.NewAuthority(t)
	dir := t.TempDir()
	files := authority.Issue(t, dir, "server")
	files.CA = ""
	var failures atomic.Int64
	client := open(t, tlsfiles.Files{CA: authority.Issue(t, dir, "ca").CA}, &failures).Client("server")
	server := open(t, files, &failures)
	serial := func() string {
		cert, err := handshake(t, server.Server(nil), client)
		if err != nil {
			t.Fatal(err)
		}
		return cert.SerialNumber.String()
	}
	// The files are checked once per second.
	until := func(what string, condition func() bool) {
		for deadline := time.Now().Add(20 * time.Second); !condition(); {
			if time.Now().After(deadline) {
				t.Fatalf("not within 20 s: %s", what)
			}
		}
	}
	first := serial()
	authority.Issue(t, dir, "server")
	until("the new certificate counts", func() bool { return serial() != first })
	second := serial()
	if err := os.WriteFile(files.Key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	failures.Store(0)
	until("a broken key is reported", func() bool { return serial() == second && failures.Load() > 0 })
	if serial() != second {
		t.Error("with a broken key file the old certificate does not stay")
	}
}

func TestFiles_InvalidOnesAreRejectedAtStart(t *testing.T) {
	dir := t.TempDir()
	good := tlstest.NewAuthority(t).Issue(t, dir, "server")
	other := tlstest.NewAuthority(t).Issue(t, dir, "other")
	for name, rule := range map[string]struct {
		files tlsfiles.Files
		want  string
	}{
		"no key":       {tlsfiles.Files{Cert: good.Cert}, "needs its key"},
		"another key":  {tlsfiles.Files{Cert: good.Cert, Key: other.Key}, "does not match"},
		"no such file": {tlsfiles.Files{CA: dir + "/none"}, "no such file"},
		"no CA in it":  {tlsfiles.Files{CA: good.Key}, "has no certificate"},
	} {
		if _, err := tlsfiles.Open(rule.files, nil); err == nil || !strings.Contains(err.Error(), rule.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
