package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// revokedBy returns a revocation list that an authority has signed, in PEM.
func revokedBy(t *testing.T, by *issued, change func(*x509.RevocationList), serials ...int64) []byte {
	t.Helper()
	list := &x509.RevocationList{
		Number:     big.NewInt(1),
		ThisUpdate: time.Now().Add(-time.Minute),
		NextUpdate: time.Now().Add(time.Hour),
	}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: time.Now(), ReasonCode: 1})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// client returns a certificate with a serial number.
func client(t *testing.T, by *issued, name string, serial int64) *issued {
	t.Helper()
	template := partner(name)
	template.SerialNumber = big.NewInt(serial)
	return issue(t, by, template)
}

// of is a source with a text.
func of(text []byte) Source { return func(context.Context) ([]byte, error) { return text, nil } }

// A certificate is rejected if it, or an authority between it and that of the file, is on a list, and unless each of
// their issuers has a current list.
func TestRevocationLists_DecideAboutTheChain(t *testing.T) {
	root := issue(t, nil, authorityTemplate("root"))
	template := authorityTemplate("middle")
	template.SerialNumber = big.NewInt(7)
	middle := issue(t, root, template)
	direct, below := client(t, root, "ada", 1), client(t, middle, "ada", 1)
	expired := func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Second) }
	early := func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(10 * time.Minute) }
	older := func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(-time.Hour) }
	both := pemOf(root, middle)
	twoCerts, threeCerts := verifiedChain(direct, root), verifiedChain(below, middle, root)
	twoOfFile := verifiedChain(below, middle)
	list := func(by *issued, serials ...int64) []byte { return revokedBy(t, by, nil, serials...) }
	lists := func(texts ...[]byte) [][]byte { return texts }
	for name, test := range map[string]struct {
		lists         [][]byte
		chain         [][]*x509.Certificate
		acceptExpired bool
		want          error
	}{
		"not on the list":         {lists(list(root, 2, 3)), twoCerts, false, nil},
		"on the list":             {lists(list(root, 2, 1)), twoCerts, false, ErrRevoked},
		"on another issuer's":     {lists(list(root), list(middle, 1)), twoCerts, false, nil},
		"its authority is on it":  {lists(list(root, 7), list(middle)), threeCerts, false, ErrRevoked},
		"its root is on it":       {lists(list(root, 7), list(middle)), twoOfFile, false, ErrRevoked},
		"a chain with both lists": {lists(list(root), list(middle)), threeCerts, false, nil},
		"no list of its issuer":   {lists(list(root)), threeCerts, false, ErrUnknownStatus},
		"accepted without one":    {lists(list(root)), threeCerts, true, nil},
		"expired":                 {lists(revokedBy(t, root, expired)), twoCerts, false, ErrUnknownStatus},
		"of the future":           {lists(revokedBy(t, root, early)), twoCerts, false, ErrUnknownStatus},
		"expired and accepted":    {lists(revokedBy(t, root, expired)), twoCerts, true, nil},
		"on an expired one":       {lists(revokedBy(t, root, expired, 1)), twoCerts, true, ErrRevoked},
		"no longer on the newest": {lists(list(root), revokedBy(t, root, older, 1)), twoCerts, false, nil},
		"only on the newest":      {lists(revokedBy(t, root, older), list(root, 1)), twoCerts, false, ErrRevoked},
	} {
		v, authority := certificateVerifier(t, &both, ordinary)
		if err := authority.OpenLists(t.Context(), of(bytes.Join(test.lists, nil)), test.acceptExpired); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 2 { // the second time from the cache
			if _, err := v.AuthenticateCertificate(t.Context(), time.Now(), test.chain); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			} else if err != nil && Public(err).Error() != test.want.Error() {
				t.Errorf("%s: the public error is %v", name, Public(err))
			}
		}
	}
}

// A list that is not complete, not signed by the authority or too large is not used.
func TestRevocationLists_InvalidOnesAreNotUsed(t *testing.T) {
	root, other := issue(t, nil, authorityTemplate("root")), issue(t, nil, authorityTemplate("root"))
	template := authorityTemplate("signer")
	template.KeyUsage = x509.KeyUsageCertSign
	noLists := issue(t, nil, template)
	critical := func(l *x509.RevocationList) { // a delta list
		l.ExtraExtensions = []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}},
		}
	}
	uncritical := func(l *x509.RevocationList) { // as an authority makes it that does not follow RFC 5280 §5.2.4
		critical(l)
		l.ExtraExtensions[0].Critical = false
	}
	indirect := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{
			SerialNumber:   big.NewInt(1),
			RevocationTime: time.Now(),
			ExtraExtensions: []pkix.Extension{
				{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}},
			},
		}}
	}
	signer := *noLists.cert
	signer.KeyUsage = x509.KeyUsageCRLSign
	der, _ := pem.Decode(revokedBy(t, root, nil, 1))
	for name, test := range map[string]struct {
		text []byte
		want string
	}{
		"in PEM":                      {revokedBy(t, root, nil, 1), ""},
		"in DER":                      {der.Bytes, ""},
		"none":                        {pemOf(root), "no revocation list"},
		"no text":                     {nil, "revocation list 1"},
		"damaged":                     {der.Bytes[:len(der.Bytes)-1], "revocation list 1"},
		"another key of the name":     {revokedBy(t, other, nil), "no certificate of the authority's file"},
		"a key that may sign no list": {revokedBy(t, &issued{&signer, noLists.key}, nil), "may sign lists"},
		"a delta list":                {revokedBy(t, root, critical), "delta lists are not supported"},
		"a delta list, not critical":  {revokedBy(t, root, uncritical), "delta lists are not supported"},
		"an indirect list":            {revokedBy(t, root, indirect), "2.5.29.29"},
		"too many lists":              {bytes.Repeat(revokedBy(t, root, nil), maxLists+1), "more than 64"},
	} {
		_, err := parseLists(test.text, []*x509.Certificate{root.cert, noLists.cert})
		if test.want == "" && err != nil ||
			test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	text := pemOf(root)
	_, authority := certificateVerifier(t, &text, ordinary)
	if err := authority.OpenLists(t.Context(), of(make([]byte, MaxListsBytes+1)), false); err == nil {
		t.Error("a file beyond the bound is accepted")
	}
}

// Lists follow their file and the authority's: an invalid text leaves the former lists in use, is used once the
// authority's certificates have signed it, and a list that expires is reported.
func TestRevocationLists_FollowTheirAuthority(t *testing.T) {
	root, next := issue(t, nil, authorityTemplate("root")), issue(t, nil, authorityTemplate("next"))
	text := pemOf(root)
	v, authority := certificateVerifier(t, &text, ordinary)
	if err := authority.OpenLists(t.Context(), of(revokedBy(t, root, nil, 2)), false); err != nil {
		t.Fatal(err)
	}
	check := func(what string, want error, chain ...*issued) {
		t.Helper()
		_, err := v.AuthenticateCertificate(t.Context(), time.Now(), verifiedChain(chain...))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	ada, bob := client(t, root, "ada", 1), client(t, next, "bob", 2)
	check("at first", nil, ada, root)
	p, err := v.AuthenticateCertificate(t.Context(), time.Now(), verifiedChain(ada, root))
	if err != nil || v.Revoked(p) || len(v.DegradedRevocations()) != 0 {
		t.Fatalf("%v, %v", err, v.DegradedRevocations())
	}
	both := append(revokedBy(t, root, nil, 1), revokedBy(t, next, nil, 2)...)
	if err := authority.useLists(both); err == nil {
		t.Error("a list of an unknown authority is accepted")
	}
	check("after an invalid text", nil, ada, root)
	if err := authority.use(pemOf(root, next)); err != nil {
		t.Fatal(err)
	}
	authority.reuseLists(func(err error) { t.Error(err) })
	check("after the authority was added", ErrRevoked, ada, root)
	check("of the added authority", ErrRevoked, bob, next)
	if !v.Revoked(p) {
		t.Error("an admitted certificate is not revoked")
	}
	if authority.lists.expire(time.Now()) {
		t.Error("a list has expired before its time")
	}
	later := time.Now().Add(2 * time.Hour)
	if !authority.lists.expire(later) || authority.lists.expire(later) {
		t.Error("lists that expire are not reported once")
	}
	if reason := authority.degradedLists(later); !strings.Contains(reason, "rejected") {
		t.Errorf("the reason is %q", reason)
	}
}

// A list that was issued before the one that is known does not take its place: a client that replays it would have a
// revoked certificate accepted. The other lists of its file are used.
func TestRevocationLists_OlderOnesReplaceNoNewer(t *testing.T) {
	root, other := issue(t, nil, authorityTemplate("root")), issue(t, nil, authorityTemplate("other"))
	text := pemOf(root, other)
	v, authority := certificateVerifier(t, &text, ordinary)
	now := time.Now()
	list := func(number int64, issued time.Duration, serials ...int64) []byte {
		return revokedBy(t, root, func(l *x509.RevocationList) {
			l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(number), now.Add(issued), now.Add(3*time.Hour)
		}, serials...)
	}
	rest := func(serials ...int64) []byte { return revokedBy(t, other, nil, serials...) }
	if err := authority.OpenLists(t.Context(), of(append(list(7, -time.Hour, 1), rest()...)), false); err != nil {
		t.Fatal(err)
	}
	ada, eve := client(t, root, "ada", 1), client(t, other, "eve", 2)
	rejected := func(c *issued, by *issued) bool {
		t.Helper()
		_, err := v.AuthenticateCertificate(t.Context(), now, verifiedChain(c, by))
		if err != nil && !errors.Is(err, ErrRevoked) {
			t.Fatal(err)
		}
		return err != nil
	}
	if !rejected(ada, root) || rejected(eve, other) {
		t.Fatal("the first lists do not apply")
	}
	for _, test := range []struct {
		name  string
		text  []byte
		older bool
		ada   bool // is rejected afterwards
	}{
		{"an earlier one", list(6, -2*time.Hour), true, true},
		{"an earlier one under a higher number", list(9, -2*time.Hour), true, true},
		{"a lower number in the same second", list(6, -time.Hour), true, true},
		{"the same one", list(7, -time.Hour, 1), false, true},
		{"a higher number in the same second", list(8, -time.Hour), false, false},
		{"one of the future", list(10, time.Hour, 1), false, false},
		{"one after a mistake of the authority's clock", list(9, -time.Minute, 1), false, true},
		{"a later one under a lower number", list(1, 0), false, false},
	} {
		err := authority.useLists(append(test.text, rest(2)...))
		if errors.Is(err, errOlderList) != test.older || !test.older && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.name == "one of the future" { // it is not current
			continue
		}
		if got := rejected(ada, root); got != test.ada {
			t.Errorf("%s: rejected %v, want %v", test.name, got, test.ada)
		}
		if !rejected(eve, other) {
			t.Errorf("%s: the file's other list does not apply", test.name)
		}
	}
}
