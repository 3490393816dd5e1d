package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue returns a certificate that by has signed; nil: it signs itself.
func issue(t *testing.T, by *issued, template x509.Certificate) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := &issued{key: key}
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(0x0a1b)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Minute)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := &template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if out.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return out
}

// authorityTemplate is the template of the certificate of an authority.
func authorityTemplate(name string) x509.Certificate {
	return x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func pemOf(certs ...*issued) []byte {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...)
	}
	return text
}

// partner is the template of a client's certificate.
func partner(name string) x509.Certificate {
	role := &url.URL{Scheme: "spiffe", Host: "example.com", Path: "/client/" + name}
	return x509.Certificate{
		Subject: pkix.Name{
			CommonName:         name,
			Organization:       []string{"acme"},
			OrganizationalUnit: []string{"query.read", "ops"},
		},
		URIs:        []*url.URL{role},
		DNSNames:    []string{name + ".example.com"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func certificateVerifier(t *testing.T, document *[]byte, mapping MappingConfig) (*Verifier, *Authority) {
	t.Helper()
	authority := &Authority{}
	if err := authority.use(*document); err != nil {
		t.Fatal(err)
	}
	m, err := NewCertificateMapping(mapping)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(Config{
		APIKeys:     emptyKeys(t),
		Authorities: []AuthorityConfig{{Name: "partners", Certificates: authority, Mapping: m}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v, authority
}

func emptyKeys(t *testing.T) *APIKeyRing {
	t.Helper()
	ring := &APIKeyRing{}
	ring.current.Store(&apiKeys{})
	return ring
}

var ordinary = MappingConfig{
	Subject: "claims.uris[0] + ' ' + claims.serial",
	Tenants: "tenants(claims.organizations)",
	Rights:  "rights(claims.units)",
}

func TestAuthenticateCertificate_MapsAndChecks(t *testing.T) {
	ca := issue(t, nil, authorityTemplate("partners"))
	text := pemOf(ca)
	v, authority := certificateVerifier(t, &text, ordinary)
	now := time.Now()
	chain := func(template x509.Certificate, roots ...*issued) [][]*x509.Certificate {
		chain := []*x509.Certificate{issue(t, ca, template).cert}
		for _, root := range append([]*issued{ca}, roots...) {
			chain = append(chain, root.cert)
		}
		return [][]*x509.Certificate{chain}
	}
	ada := chain(partner("ada"))
	p, err := v.AuthenticateCertificate(t.Context(), now, ada)
	if err != nil || p.Subject != "partners:spiffe://example.com/client/ada 0A1B" || len(p.Tenants) != 1 ||
		p.Tenants[0].String() != "acme" || strings.Join(p.RightTexts(), ",") != "query.read" || p.AnyTenant {
		t.Fatalf("%+v, %v", p, err)
	}
	if again, err := v.AuthenticateCertificate(t.Context(), now, ada); err != nil || again != p {
		t.Errorf("the result is not cached: %v, %v", again, err)
	}
	long, unnamed, wrong := partner("ada"), partner("ada"), partner("ada")
	long.NotAfter = time.Now().Add(MaxTokenLifetime + 48*time.Hour)
	unnamed.URIs = nil
	wrong.NotAfter = time.Now().Add(time.Second)
	other := issue(t, nil, authorityTemplate("partners"))
	for name, test := range map[string]struct {
		chains [][]*x509.Certificate
		now    time.Time
		want   error
	}{
		"none":                    {nil, now, ErrNoCredential},
		"of another authority":    {chain(partner("ada"), other), now, ErrNoCredential},
		"of no authority":         {[][]*x509.Certificate{{ca.cert}}, now, ErrNoCredential},
		"valid for too long":      {chain(long), now, ErrBadCertificate},
		"without the claim":       {chain(unnamed), now, ErrBadCertificate},
		"expired":                 {chain(wrong), now.Add(time.Minute), ErrExpiredCertificate},
		"of an expired authority": {ada, now.Add(2 * time.Hour), ErrExpiredCertificate},
	} {
		if _, err := v.AuthenticateCertificate(t.Context(), test.now, test.chains); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		} else if Public(err).Error() != test.want.Error() { // without its details
			t.Errorf("%s: the public error is %v", name, Public(err))
		}
	}
	// A token whose text is the key of a cached certificate is none.
	for text := range v.certificates.entries {
		if _, err := v.Authenticate(t.Context(), now, []string{"Bearer " + text}); !errors.Is(err, ErrBadToken) {
			t.Errorf("the token %q: %v", text, err)
		}
	}

	// What the principal delegates ends with the authority, as it does.
	acme := p.Tenants[0]
	d, err := v.Delegate(p, acme, "query.read")
	if err != nil {
		t.Fatal(err)
	}
	if restored, err := v.Restore(d, now); err != nil || restored.Subject != p.Subject || v.Revoked(restored) {
		t.Errorf("restored %+v, %v", restored, err)
	}
	if err := authority.use(pemOf(other)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.AuthenticateCertificate(t.Context(), now, ada); !errors.Is(err, ErrNoCredential) || !v.Revoked(p) {
		t.Errorf("after the authority was replaced: %v, revoked %v", err, v.Revoked(p))
	}
	if _, err := v.Restore(d, now); !errors.Is(err, ErrRevoked) {
		t.Errorf("a delegate after the authority was replaced: %v", err)
	}
}

func TestAuthority_HasCertificatesOfAuthoritiesOnly(t *testing.T) {
	ca := issue(t, nil, authorityTemplate("a"))
	many := make([]*issued, maxAuthorities+1)
	for i := range many {
		many[i] = ca
	}
	for name, test := range map[string]struct {
		text []byte
		want string
	}{
		"one":       {pemOf(ca), ""},
		"a client":  {pemOf(ca, issue(t, ca, partner("ada"))), "certificate 2 (\"ada\") is not one of an authority"},
		"none":      {[]byte("x"), "no certificate"},
		"too many":  {pemOf(many...), "more than 32"},
		"not a DER": {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1"},
	} {
		err := (&Authority{}).use(test.text)
		if test.want == "" && err != nil ||
			test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestNewVerifier_AuthoritiesHaveNamesOfTheirOwn(t *testing.T) {
	authority := &Authority{}
	if err := authority.use(pemOf(issue(t, nil, authorityTemplate("a")))); err != nil {
		t.Fatal(err)
	}
	mapping, err := NewCertificateMapping(ordinary)
	if err != nil {
		t.Fatal(err)
	}
	named := func(names ...string) error {
		config := Config{APIKeys: emptyKeys(t)}
		for _, name := range names {
			config.Authorities = append(
				config.Authorities, AuthorityConfig{Name: name, Certificates: authority, Mapping: mapping},
			)
		}
		_, err := NewVerifier(config)
		return err
	}
	for _, names := range [][]string{{""}, {"key"}, {"A"}, {"a", "a"}} {
		if named(names...) == nil {
			t.Errorf("%q are accepted", names)
		}
	}
	if err := named("a", "b"); err != nil {
		t.Error(err)
	}
	for _, config := range []MappingConfig{
		{Subject: "claims.common_name"}, {Subject: `"a"`, Tenants: `["a"]`, Rights: `["a"]`, Audience: `"a"`},
	} {
		if _, err := NewCertificateMapping(config); err == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
}

// The nearest authority of a chain issues the principal, regardless of the certificates that the client sends; a
// renewed intermediate prolongs it; and a certificate without the usage of clients is rejected.
func TestAuthenticateCertificate_TheClientCannotChooseItsAuthority(t *testing.T) {
	root := issue(t, nil, authorityTemplate("root"))
	middle := issue(t, root, authorityTemplate("middle"))
	ending := authorityTemplate("ending")
	ending.NotAfter = time.Now().Add(10 * time.Minute)
	first := issue(t, root, ending)
	mapping, err := NewCertificateMapping(
		MappingConfig{Subject: "claims.common_name", Tenants: "['acme']", Rights: "['query.read']"})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{APIKeys: emptyKeys(t)}
	for name, of := range map[string]*issued{"corp": root, "partners": middle} {
		authority := &Authority{}
		if err := authority.use(pemOf(of)); err != nil {
			t.Fatal(err)
		}
		config.Authorities = append(config.Authorities, AuthorityConfig{
			Name: name, Certificates: authority, Mapping: mapping,
		})
	}
	slices.SortFunc(config.Authorities, func(a, b AuthorityConfig) int { return strings.Compare(a.Name, b.Name) })
	v, err := NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	subject := func(now time.Time, leaf *x509.Certificate, sent ...*x509.Certificate) (string, error) {
		options := x509.VerifyOptions{
			Roots:         x509.NewCertPool(),
			Intermediates: x509.NewCertPool(),
			CurrentTime:   now,
			KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		for _, c := range v.ClientAuthorities() {
			options.Roots.AddCert(c)
		}
		for _, c := range sent {
			options.Intermediates.AddCert(c)
		}
		chains, err := leaf.Verify(options)
		if err != nil {
			t.Fatal(err)
		}
		p, err := v.AuthenticateCertificate(t.Context(), now, chains)
		if err != nil {
			return "", err
		}
		return p.Subject, nil
	}
	now := time.Now()
	ada := issue(t, middle, partner("ada")).cert
	for _, sent := range [][]*x509.Certificate{nil, {middle.cert}} {
		if got, err := subject(now, ada, sent...); err != nil || got != "partners:ada" {
			t.Errorf("with %d certificates: %q, %v", len(sent), got, err)
		}
	}
	bob := issue(t, first, partner("bob")).cert
	if got, err := subject(now, bob, first.cert); err != nil || got != "corp:bob" {
		t.Errorf("%q, %v", got, err)
	}
	ending.NotAfter, ending.SerialNumber, ending.NotBefore = now.Add(time.Hour), big.NewInt(2), now.Add(-time.Minute)
	raw, err := x509.CreateCertificate(rand.Reader, &ending, root.cert, first.key.Public(), root.key)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := subject(now.Add(20*time.Minute), bob, renewed); err != nil || got != "corp:bob" {
		t.Errorf("with the renewed authority: %q, %v", got, err)
	}
	server := partner("server")
	server.ExtKeyUsage = nil
	if got, err := subject(now, issue(t, middle, server).cert); !errors.Is(err, ErrBadCertificate) {
		t.Errorf("without an extended key usage: %q, %v", got, err)
	}
}

// verifiedChain returns the chain of certificates, from the client's to the authority's.
func verifiedChain(chain ...*issued) [][]*x509.Certificate {
	out := make([]*x509.Certificate, len(chain))
	for i, c := range chain {
		out[i] = c.cert
	}
	return [][]*x509.Certificate{out}
}

// A serial number is unique for its issuer: a revocation that names the issuer covers one certificate, or all below an
// intermediate authority; one without covers the serial number of every issuer, as those of earlier versions do.
func TestRevocations_OfCertificatesNameTheirIssuer(t *testing.T) {
	root := issue(t, nil, authorityTemplate("root"))
	first, second := issue(t, root, authorityTemplate("First CA")), issue(t, root, authorityTemplate("second"))
	text := pemOf(root)
	v, _ := certificateVerifier(t, &text, ordinary)
	chains := map[string][][]*x509.Certificate{
		"first":  verifiedChain(issue(t, first, partner("ada")), first, root), // all have the serial number 0A1B
		"second": verifiedChain(issue(t, second, partner("bob")), second, root),
		"root":   verifiedChain(issue(t, root, partner("eve")), root),
	}
	for name, test := range map[string]struct {
		id   string
		want string
	}{
		"without an issuer":            {"a:1b", "first root second"},
		"of the first issuer":          {"0A1B@cn=first  ca", "first"},
		"of the second issuer":         {"0a:1b@CN=second", "second"},
		"of an intermediate authority": {"0A1B@CN=root", "first root second"},
		"another serial number":        {"0A1C@CN=second", ""},
		"another issuer":               {"0A1B@CN=third", ""},
		"of no certificate":            {"x", ""},
	} {
		set, err := NewRevocations([]Revocation{{Issuer: CertificatesOf("partners"), TokenID: test.id}})
		if err != nil {
			t.Fatal(err)
		}
		v.SetRevocations(RevocationsPlatform, set)
		var got []string
		for _, of := range []string{"first", "root", "second"} {
			_, err := v.AuthenticateCertificate(t.Context(), time.Now(), chains[of])
			if errors.Is(err, ErrRevoked) {
				got = append(got, of)
			} else if err != nil {
				t.Errorf("%s, %s: %v", name, of, err)
			}
		}
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("%s: %q are revoked, want %q", name, text, test.want)
		}
	}
	list := &RevocationList{}
	if err := list.use([]byte("- {issuer: 'certificates:partners', token_id: x}")); err == nil {
		t.Error("a file with a revocation of no certificate is accepted")
	}
}

// What a client delegates ends with the revocation of an intermediate authority, too.
func TestDelegate_EndsWithItsIntermediateAuthority(t *testing.T) {
	root := issue(t, nil, authorityTemplate("root"))
	middle := issue(t, root, authorityTemplate("middle"))
	text := pemOf(root)
	v, _ := certificateVerifier(t, &text, ordinary)
	chain := verifiedChain(issue(t, middle, partner("ada")), middle, root)
	p, err := v.AuthenticateCertificate(t.Context(), time.Now(), chain)
	if err != nil {
		t.Fatal(err)
	}
	d, err := v.Delegate(p, p.Tenants[0], "query.read")
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewRevocations([]Revocation{{Issuer: CertificatesOf("partners"), TokenID: "0A1B@CN=root"}})
	if err != nil {
		t.Fatal(err)
	}
	v.SetRevocations(RevocationsPlatform, set)
	if _, err := v.Restore(d, time.Now()); !errors.Is(err, ErrRevoked) || !v.Revoked(p) {
		t.Errorf("the delegate: %v, revoked: %v", err, v.Revoked(p))
	}
}

// Where certificates must be issued directly, removing an intermediate authority from the file ends its certificates,
// although an authority above it remains.
func TestAuthenticateCertificate_DirectAuthorityEndsWithItsFile(t *testing.T) {
	root := issue(t, nil, authorityTemplate("root"))
	middle := issue(t, root, authorityTemplate("middle"))
	ada := issue(t, middle, partner("ada"))
	chains := append(verifiedChain(ada, middle, root), verifiedChain(ada, middle)...)
	for _, direct := range []bool{false, true} {
		text := pemOf(root, middle)
		v, authority := certificateVerifier(t, &text, ordinary)
		v.authorities[0].Direct = direct
		if _, err := v.AuthenticateCertificate(t.Context(), time.Now(), chains); err != nil {
			t.Errorf("direct %v: %v", direct, err)
		}
		if err := authority.use(pemOf(root)); err != nil {
			t.Fatal(err)
		}
		_, err := v.AuthenticateCertificate(t.Context(), time.Now(), chains)
		if errors.Is(err, ErrNoCredential) != direct {
			t.Errorf("direct %v, after the intermediate authority was removed: %v", direct, err)
		}
	}
}
