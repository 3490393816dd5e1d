package credentials

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

func TestCertificateID_NotationsOfSerialsAreEqual(t *testing.T) {
	for text, want := range map[string]string{
		"0A1B": "0A1B", "0a:1b": "0A1B", "a1b": "0A1B", "00:00:0A:1B": "0A1B", "0": "00", "00": "00", "f": "0F",
		"10": "10",
	} {
		if got, issuer, err := CertificateID(text); got != want || issuer != "" || err != nil {
			t.Errorf("%q is %q of %q (%v), want %q", text, got, issuer, err, want)
		}
	}
	if got := CertificateSerial(big.NewInt(0x0a1b)); got != "0A1B" {
		t.Errorf("the serial number is %q", got)
	}
	if got := CertificateSerial(big.NewInt(0)); got != "00" {
		t.Errorf("the serial number 0 is %q", got)
	}
	for _, text := range []string{
		"", "@CN=a", "x", "0A@", "0A@a", "0A@=a", "0A@CN=a,b", "0A@issuer=CN=a", "0A@CN=a,Foo=b", "0A@CN=#zz",
		"0A@CN=#0c0261", "0A@CN=#",
	} {
		if serial, issuer, err := CertificateID(text); err == nil {
			t.Errorf("%q is %q of %q", text, serial, issuer)
		}
	}
}

// The name of an issuer is the same in a certificate and in the notations of RFC 4514, openssl and Go.
func TestCertificateID_NotationsOfIssuersAreEqual(t *testing.T) {
	name := pkix.Name{
		Country:      []string{"DE"},
		Organization: []string{`Acme, "Öl"  GmbH`},
		CommonName:   "Partners CA+1",
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "ca@acme.example"},
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "acme"},
		},
	}
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	want := CertificateIssuer(der)
	for _, text := range []string{
		`DC=acme,emailAddress=ca@acme.example,CN=Partners CA\+1,O=Acme\, \"\C3\96l\" GmbH,C=DE`,
		`C = DE, O = "Acme, \"Öl\" GmbH", CN = "Partners CA+1", emailAddress = ca@acme.example, DC = acme`,
		`c=de;o=acme\2C \22öl\22 gmbh;cn=PARTNERS  ca\2B1;E=CA@acme.example;0.9.2342.19200300.100.1.25=acme`,
	} {
		if _, got, err := CertificateID("0A@" + text); got != want || err != nil {
			t.Errorf("%s\nis   %q (%v)\nwant %q", text, got, err, want)
		}
	}
	if _, got, err := CertificateID(`0A@CN=Partners CA\+1,O=Acme`); got == want || err != nil {
		t.Errorf("another name is the same: %v", err)
	}
	if got := CertificateIssuer([]byte("x")); got != "" {
		t.Errorf("a name that cannot be read is %q", got)
	}
}

// A revocation that names an issuer as a tool prints it covers its certificates with any attributes of the name.
func TestCertificateID_IssuersOfUnusualAttributesAreEqual(t *testing.T) {
	for _, test := range []struct {
		oid   asn1.ObjectIdentifier
		value any
		texts []string
	}{
		{asn1.ObjectIdentifier{2, 5, 4, 97}, "VATDE-1", []string{
			"organizationIdentifier=VATDE-1", "OID.2.5.4.97=vatde-1", "2.5.4.97=#0C0756415444452D31",
		}},
		{asn1.ObjectIdentifier{2, 5, 4, 46}, "q", []string{"dnQualifier=q", "DNQ=q", "2.5.4.46=#130171"}},
		{asn1.ObjectIdentifier{2, 5, 4, 65}, "ps", []string{"pseudonym=ps"}},
		{asn1.ObjectIdentifier{2, 5, 4, 43}, "XY", []string{"initials=XY", "I=xy"}},
		{asn1.ObjectIdentifier{2, 5, 4, 13}, "d x", []string{"description=d x"}},
		{asn1.ObjectIdentifier{2, 5, 4, 15}, "Private", []string{"businessCategory=Private"}},
		{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3}, "DE", []string{"jurisdictionC=DE"}},
		{asn1.ObjectIdentifier{1, 2, 3, 4}, "unk", []string{"1.2.3.4=#0C03756E6B", "1.2.3.4=unk"}},
		{asn1.ObjectIdentifier{1, 2, 3, 4}, 7, []string{"1.2.3.4=#020107"}},
		{asn1.ObjectIdentifier{2, 5, 4, 10}, "#a", []string{`organizationName=\#a`}},
	} {
		name := pkix.Name{
			CommonName: "CA",
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: test.oid, Value: test.value}},
		}
		der, err := asn1.Marshal(name.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		want := CertificateIssuer(der)
		for _, text := range test.texts {
			if _, got, err := CertificateID("0A@CN=CA," + text); got != want || err != nil {
				t.Errorf("%s is %q (%v), want %q", text, got, err, want)
			}
		}
	}
}
