package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// certified is an edge over TLS that accepts certificates of an authority as credentials.
type certified struct {
	*edge
	ticks *ticker

	server   tlsfiles.Files
	partners *tlstest.Authority
}

// startCertified starts an edge that accepts the certificates of an authority: their common name is the subject, and
// the role reader reads.
func startCertified(t *testing.T, change func(*gateway.Config)) *certified {
	t.Helper()
	return startCertifiedBy(t, tlstest.NewAuthority(t), change)
}

// startCertifiedBy is startCertified with an authority.
func startCertifiedBy(t *testing.T, partners *tlstest.Authority, change func(*gateway.Config)) *certified {
	t.Helper()
	c := &certified{ticks: newTicker(t), partners: partners}
	dir := t.TempDir()
	c.server = tlstest.NewAuthority(t).Issue(t, dir, "localhost")
	material, err := tlsfiles.Open(tlsfiles.Files{Cert: c.server.Cert, Key: c.server.Key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := auth.OpenAuthority(t.Context(), auth.File(c.partners.Issue(t, dir, "any").CA))
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := auth.NewCertificateMapping(auth.MappingConfig{
		Subject: "claims.common_name",
		Tenants: `["acme"]`,
		Rights:  `lookup(claims.uris, {"spiffe://headgate.test/role/reader": ["query.read", "tick.read"]})`,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.edge = startWith(t, func(config *gateway.Config) {
		config.Listen.TLS, config.TicketSecret = material, ticketSecret
		config.Auth.Authorities = []auth.AuthorityConfig{{Name: "partners", Certificates: authority, Mapping: mapping}}
		if change != nil {
			change(config)
		}
	}, c.ticks.register, c.ticks.set(t))
	c.grpc = "https" + strings.TrimPrefix(c.grpc, "http")
	return c
}

// as makes further connections with a certificate of an authority for a role; nil: without one. It returns the
// certificate.
func (c *certified) as(t *testing.T, authority *tlstest.Authority, name, role string) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(c.server.CA)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots}
	var leaf *x509.Certificate
	if authority != nil {
		files := authority.IssueFor(t, t.TempDir(), name, role)
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates, leaf = []tls.Certificate{pair}, pair.Leaf
	}
	c.plain = &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}}
	c.h2c = &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}}
	t.Cleanup(c.plain.CloseIdleConnections)
	t.Cleanup(c.h2c.CloseIdleConnections)
	return leaf
}

// wallets makes a call over a protocol, and returns its result as text.
func (c *certified) wallets(t *testing.T, protocol string, header ...string) string {
	t.Helper()
	got := c.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, header...)
	if got.err != nil {
		return fmt.Sprintf("%v %s", got.code, got.err.Message())
	}
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	return "ok as " + strings.Join(c.node.header[strings.ToLower(contextkit.HeaderPrincipal)], ",")
}

// A client's certificate is its credential over every protocol and at both ports, unless the request has a token, or is
// a browser's. A certificate of another authority is none.
func TestCertificates_AreCredentialsOverEveryProtocol(t *testing.T) {
	c := startCertified(t, nil)
	check := func(what, want string, header ...string) {
		t.Helper()
		for _, protocol := range protocols {
			if got := c.wallets(t, protocol, header...); !strings.Contains(got, want) {
				t.Errorf("%s, %s: got %q, want %q", what, protocol, got, want)
			}
		}
	}
	c.as(t, c.partners, "ada", "reader")
	check("with the right", "ok as partners:ada")
	check("with a token, too", "ok as app", "Authorization", c.token(t, "acme", "query.read"))
	check("with a token without the right", "permission_denied", "Authorization", c.token(t, "acme", "tick.read"))
	check("with an invalid token", "unauthenticated", "Authorization", "Bearer x")
	check("for another tenant", "permission_denied", "X-Tenant-Id", "globex")
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "same-origin"}} {
		check("of a browser", "no credential for requests of a browser", header...)
	}
	c.as(t, c.partners, "bob", "writer")
	check("without the right", "permission_denied")
	c.as(t, nil, "", "")
	check("without a certificate", "unauthenticated no credential")
	c.as(t, tlstest.NewAuthority(t), "ada", "reader")
	for _, url := range []string{c.url + "/health", c.grpc} {
		res, err := c.h2c.Get(url)
		if err == nil {
			res.Body.Close()
			t.Errorf("%s accepts a certificate of another authority", url)
		}
	}
}

// A revoked certificate is rejected over every protocol, and ends the streams and tickets that it opened, and no
// others.
func TestCertificates_RevocationEndsCallsAndStreams(t *testing.T) {
	c := startCertified(t, nil)
	everyStream := []string{"connect+json", "grpc", "native grpc", "grpcweb", events, lines, byTicket}
	for _, what := range []string{"subject", "serial", "issuer"} {
		leaf := c.as(t, c.partners, "ada", "reader")
		open := map[string]func() error{}
		for _, protocol := range everyStream {
			open[protocol] = c.openAmong(t, c.ticks, protocol, "")
		}
		r := map[string]auth.Revocation{
			"subject": {Subject: "partners:ada", IssuedBefore: time.Now()},
			"issuer":  {Issuer: auth.CertificatesOf("partners"), IssuedBefore: time.Now()},
			"serial": {
				Issuer:  auth.CertificatesOf("partners"),
				TokenID: fmt.Sprintf("%X", leaf.SerialNumber.Bytes()),
			},
		}[what]
		set, err := auth.NewRevocations([]auth.Revocation{r})
		if err != nil {
			t.Fatal(err)
		}
		c.edge.edge.SetRevocations(set)
		for protocol, receive := range open {
			var err error
			for err == nil {
				err = receive()
			}
			if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
				t.Errorf("%s, stream over %s: %v", what, protocol, err)
			}
			<-c.ticks.done
		}
		for _, protocol := range protocols {
			if got := c.wallets(t, protocol); !strings.Contains(got, "unauthenticated the credential was revoked") {
				t.Errorf("%s, %s: %s", what, protocol, got)
			}
		}
		c.as(t, c.partners, "bob", "reader")
		if got := c.wallets(t, "grpc"); strings.HasPrefix(got, "ok") != (what != "issuer") {
			t.Errorf("%s, another certificate: %s", what, got)
		}
		none, err := auth.NewRevocations(nil)
		if err != nil {
			t.Fatal(err)
		}
		c.edge.edge.SetRevocations(none)
	}
}

// The certificate of a trusted proxy is not that of its clients, and one of the authority that every client needs is
// no credential.
func TestCertificates_OfProxiesAndConnectionsAreNoCredentials(t *testing.T) {
	proxied := startCertified(t, func(config *gateway.Config) {
		config.Listen.Proxies = behind(t, "", "127.0.0.1")
	})
	proxied.as(t, proxied.partners, "proxy", "reader")
	for _, protocol := range protocols {
		if got := proxied.wallets(
			t, protocol, "X-Forwarded-For", "203.0.113.9",
		); !strings.Contains(got, "no credential") {
			t.Errorf("behind a proxy, %s: %s", protocol, got)
		}
	}
	clients := tlstest.NewAuthority(t)
	mutual := startCertified(t, func(config *gateway.Config) {
		files := clients.Issue(t, t.TempDir(), "localhost")
		material, err := tlsfiles.Open(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		config.Listen.TLS = material
	})
	mutual.server.CA = clients.Issue(t, t.TempDir(), "localhost").CA
	for _, test := range []struct {
		authority *tlstest.Authority
		want      string
	}{{clients, "no credential"}, {mutual.partners, "ok as partners:ada"}} {
		mutual.as(t, test.authority, "ada", "reader")
		for _, protocol := range []string{"rest", "native grpc"} {
			if got := mutual.wallets(t, protocol); !strings.Contains(got, test.want) {
				t.Errorf("mutual TLS, %s: got %q, want %q", protocol, got, test.want)
			}
		}
	}
	mutual.as(t, nil, "", "")
	if res, err := mutual.h2c.Get(mutual.url + "/health"); err == nil {
		res.Body.Close()
		t.Error("no certificate is accepted where every client needs one")
	}
}

// A certificate that its authority lists as revoked is rejected, and ends the streams that it opened, and no others.
func TestCertificates_RevocationListEndsCallsAndStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "partners.crl")
	partners := tlstest.NewAuthority(t)
	partners.Revoke(t, path)
	c := startCertifiedBy(t, partners, func(config *gateway.Config) {
		err := config.Auth.Authorities[0].Certificates.OpenLists(t.Context(), auth.FileOfLists(path), false)
		if err != nil {
			t.Fatal(err)
		}
	})
	leaf := c.as(t, c.partners, "ada", "reader")
	open := map[string]func() error{}
	for _, protocol := range []string{"grpc", "native grpc", events} {
		open[protocol] = c.openAmong(t, c.ticks, protocol, "")
	}
	partners.Revoke(t, path, leaf)
	for protocol, receive := range open {
		var err error
		for err == nil {
			err = receive()
		}
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("stream over %s: %v", protocol, err)
		}
		<-c.ticks.done
	}
	for _, protocol := range protocols {
		if got := c.wallets(t, protocol); !strings.Contains(got, "unauthenticated the credential was revoked") {
			t.Errorf("%s: %s", protocol, got)
		}
	}
	c.as(t, c.partners, "bob", "reader")
	if got := c.wallets(t, "grpc"); !strings.HasPrefix(got, "ok") {
		t.Errorf("another certificate: %s", got)
	}
}

// Records of calls and denials have the principal of the certificate.
func TestCertificates_CallsAndDenialsAreAudited(t *testing.T) {
	c := startCertified(t, func(config *gateway.Config) {
		mapping, err := auth.NewCertificateMapping(auth.MappingConfig{
			Subject: "claims.common_name",
			Tenants: `["acme"]`,
			Rights:  `lookup(claims.uris, {"spiffe://headgate.test/role/admin": ["runner.admin"]})`,
		})
		if err != nil {
			t.Fatal(err)
		}
		config.Auth.Authorities[0].Mapping = mapping
	})
	records := c.records(t)
	for _, test := range []struct{ name, role, decision, reason, subject string }{
		{"ada", "admin", "allowed", "the customer has left", "audit.acme.tenant"},
		{"bob", "reader", "denied", "MISSING_RIGHT: ", "audit.acme.denied"},
	} {
		c.as(t, c.partners, test.name, test.role)
		res, err := c.h2c.Post(c.url+"/admin/runner/tenants/acme/workflows/transfer/t-1:cancel", "application/json",
			strings.NewReader(`{"reason":"the customer has left"}`))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		record, subject := records.next(t)
		if record.Principal != "partners:"+test.name || record.Decision != test.decision || subject != test.subject ||
			!strings.HasPrefix(record.Reason, test.reason) || !strings.HasSuffix(record.Procedure, "/CancelWorkflow") {
			t.Errorf("%s: %+v on %s", test.name, record, subject)
		}
	}
}
