package credentials

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// IssuerSeparator separates the serial number of a certificate from the name of its issuer in the TokenID of a
// revocation.
const IssuerSeparator = "@"

// CertificateID returns the canonical form of the TokenID of a certificate's revocation, and the name of the issuer in
// the form of [CertificateIssuer]; "": it names none, and is of the certificates of every issuer. The TokenID is SERIAL
// or SERIAL@ISSUER: the serial number in hexadecimal, in any notation of openssl and browsers, and the issuer's
// distinguished name (RFC 4514), with its parts in either order. An issuer and a serial number identify a certificate
// (RFC 5280 §4.1.2.2).
func CertificateID(text string) (serial, issuer string, err error) {
	number, name, named := strings.Cut(text, IssuerSeparator)
	number = strings.TrimSpace(number)
	if number == "" || strings.Trim(number, ":0123456789abcdefABCDEF") != "" {
		return "", "", errors.New("it has no serial number in hexadecimal, as 'openssl x509 -serial' prints it")
	}
	if named {
		if issuer, err = canonicalName(name); err != nil {
			return "", "", err
		}
	}
	return canonicalSerial(number), issuer, nil
}

// CertificateSerial returns a serial number in hexadecimal, as `openssl x509 -serial` prints it.
func CertificateSerial(serial *big.Int) string {
	return canonicalSerial(fmt.Sprintf("%X", serial.Bytes()))
}

// canonicalSerial returns a serial number in hexadecimal in upper case without colons and further zeros.
func canonicalSerial(text string) string {
	digits := strings.TrimLeft(strings.ToUpper(strings.ReplaceAll(text, ":", "")), "0")
	if len(digits)%2 == 1 || digits == "" {
		digits = "0" + digits
	}
	if digits == "0" {
		return "00"
	}
	return digits
}

// nameTypes are the short names of types of attributes, in lower case (RFC 4514 §3, openssl).
var nameTypes = map[string]string{
	"2.5.4.3": "cn", "2.5.4.4": "sn", "2.5.4.5": "serialnumber", "2.5.4.6": "c", "2.5.4.7": "l", "2.5.4.8": "st",
	"2.5.4.9": "street", "2.5.4.10": "o", "2.5.4.11": "ou", "2.5.4.12": "title", "2.5.4.17": "postalcode",
	"2.5.4.42": "gn", "0.9.2342.19200300.100.1.1": "uid", "0.9.2342.19200300.100.1.25": "dc",
	"1.2.840.113549.1.9.1": "emailaddress", "e": "emailaddress", "email": "emailaddress", "s": "st",
	"givenname": "gn", "surname": "sn",
}

// CertificateIssuer returns the canonical form of a distinguished name in DER: its attributes in lower case, sorted, so
// that notations and orders of the same name are equal (RFC 5280 §7.1 compares names without their case and further
// spaces). A name that cannot be read is "".
func CertificateIssuer(der []byte) string {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return ""
	}
	var parts []string
	for _, set := range name {
		for _, attribute := range set {
			parts = append(parts, canonicalAttribute(attribute.Type.String(), fmt.Sprint(attribute.Value)))
		}
	}
	return joinName(parts)
}

func joinName(parts []string) string {
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// canonicalAttribute returns an attribute as TYPE=VALUE in lower case, with single spaces.
func canonicalAttribute(kind, value string) string {
	kind = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(kind)), "oid.")
	if short, ok := nameTypes[kind]; ok {
		kind = short
	}
	return kind + "=" + strings.Join(strings.Fields(strings.ToLower(value)), " ")
}

// canonicalName returns the canonical form of a distinguished name in text.
func canonicalName(text string) (string, error) {
	var parts []string
	for rest := text; rest != ""; {
		attribute, more := cutUnescaped(rest, ",;+")
		rest = more
		kind, value, ok := strings.Cut(attribute, "=")
		if !ok || strings.TrimSpace(kind) == "" {
			return "", errors.New("its issuer is no distinguished name such as CN=Partners,O=Acme: 'openssl x509 " +
				"-issuer -nameopt RFC2253' prints it")
		}
		parts = append(parts, canonicalAttribute(kind, unescape(strings.TrimSpace(value))))
	}
	if len(parts) == 0 {
		return "", errors.New("its issuer is empty")
	}
	return joinName(parts), nil
}

// cutUnescaped cuts a text at the first of separators that is neither escaped nor quoted.
func cutUnescaped(text, separators string) (before, after string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(separators, text[i]) >= 0:
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

// unescape returns the value of an attribute without quotes and escapes (RFC 4514 §2.4).
func unescape(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	out := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		var code byte
		switch {
		case value[i] != '\\' || i+1 == len(value):
			out = append(out, value[i])
			continue
		case i+2 < len(value) && scanHex(value[i+1:i+3], &code):
			out = append(out, code)
			i += 2
		default:
			out = append(out, value[i+1])
			i++
		}
	}
	if !utf8.Valid(out) {
		return value
	}
	return string(out)
}

// scanHex reads two hexadecimal digits.
func scanHex(text string, into *byte) bool {
	for _, c := range []byte(strings.ToLower(text)) {
		at := strings.IndexByte("0123456789abcdef", c)
		if at < 0 {
			return false
		}
		*into = *into<<4 | byte(at)
	}
	return true
}
