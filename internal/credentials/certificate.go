package credentials

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
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

// nameTypes are names of types of attributes in lower case, by the type (RFC 4514 §3, RFC 4519, openssl, Java,
// Windows). The first one is the canonical name.
var nameTypes = map[string][]string{
	"2.5.4.3":                    {"cn", "commonname"},
	"2.5.4.4":                    {"sn", "surname"},
	"2.5.4.5":                    {"serialnumber"},
	"2.5.4.6":                    {"c", "countryname"},
	"2.5.4.7":                    {"l", "localityname"},
	"2.5.4.8":                    {"st", "s", "stateorprovincename"},
	"2.5.4.9":                    {"street", "streetaddress"},
	"2.5.4.10":                   {"o", "organizationname"},
	"2.5.4.11":                   {"ou", "organizationalunitname"},
	"2.5.4.12":                   {"title", "t"},
	"2.5.4.13":                   {"description"},
	"2.5.4.15":                   {"businesscategory"},
	"2.5.4.16":                   {"postaladdress"},
	"2.5.4.17":                   {"postalcode"},
	"2.5.4.18":                   {"postofficebox"},
	"2.5.4.20":                   {"telephonenumber"},
	"2.5.4.41":                   {"name"},
	"2.5.4.42":                   {"gn", "givenname", "g"},
	"2.5.4.43":                   {"initials", "i"},
	"2.5.4.44":                   {"generationqualifier", "generation"},
	"2.5.4.45":                   {"x500uniqueidentifier"},
	"2.5.4.46":                   {"dnqualifier", "dnq"},
	"2.5.4.65":                   {"pseudonym"},
	"2.5.4.72":                   {"role"},
	"2.5.4.97":                   {"organizationidentifier"},
	"0.9.2342.19200300.100.1.1":  {"uid", "userid"},
	"0.9.2342.19200300.100.1.3":  {"mail", "rfc822mailbox"},
	"0.9.2342.19200300.100.1.25": {"dc", "domaincomponent"},
	"1.2.840.113549.1.9.1":       {"emailaddress", "e", "email"},
	"1.2.840.113549.1.9.2":       {"unstructuredname"},
	"1.2.840.113549.1.9.8":       {"unstructuredaddress"},
	"1.3.6.1.4.1.311.60.2.1.1":   {"jurisdictionl", "jurisdictionlocalityname"},
	"1.3.6.1.4.1.311.60.2.1.2":   {"jurisdictionst", "jurisdictionstateorprovincename"},
	"1.3.6.1.4.1.311.60.2.1.3":   {"jurisdictionc", "jurisdictioncountryname"},
}

// canonicalTypes are the canonical names of the types of attributes, by the type and each of its names.
var canonicalTypes = func() map[string]string {
	out := map[string]string{}
	for oid, names := range nameTypes {
		out[oid] = names[0]
		for _, name := range names {
			out[name] = names[0]
		}
	}
	return out
}()

// attributeType returns the canonical name of a type of attributes: a known name, or an object identifier in digits.
// ok is false for any other text.
func attributeType(text string) (name string, ok bool) {
	text = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "oid.")
	if name, ok := canonicalTypes[text]; ok {
		return name, true
	}
	return text, strings.Contains(text, ".") && strings.Trim(text, ".0123456789") == ""
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
			kind, _ := attributeType(attribute.Type.String())
			parts = append(parts, canonicalAttribute(kind, fmt.Sprint(attribute.Value)))
		}
	}
	return joinName(parts)
}

func joinName(parts []string) string {
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// canonicalAttribute returns an attribute of a type as TYPE=VALUE in lower case, with single spaces.
func canonicalAttribute(kind, value string) string {
	return kind + "=" + strings.Join(strings.Fields(strings.ToLower(value)), " ")
}

// canonicalName returns the canonical form of a distinguished name in text.
func canonicalName(text string) (_ string, err error) {
	var parts []string
	for rest := text; rest != ""; {
		attribute, more := cutUnescaped(rest, ",;+")
		rest = more
		name, value, ok := strings.Cut(attribute, "=")
		if !ok || strings.TrimSpace(name) == "" {
			return "", errors.New("its issuer is no distinguished name such as CN=Partners,O=Acme: 'openssl x509 " +
				"-issuer -nameopt RFC2253' prints it")
		}
		kind, ok := attributeType(name)
		if !ok { // a name that no certificate has would revoke none
			return "", fmt.Errorf("its issuer has an attribute of the unknown type %.64q: write the type's object "+
				"identifier, such as 2.5.4.97", strings.TrimSpace(name))
		}
		if value, err = attributeValue(strings.TrimSpace(value)); err != nil {
			return "", fmt.Errorf("its issuer's attribute %s %w", kind, err)
		}
		parts = append(parts, canonicalAttribute(kind, value))
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

// attributeValue returns the value of an attribute in text: "#" before the hexadecimal DER of a value, which openssl
// prints for types that it does not know, or a text with quotes and escapes (RFC 4514 §2.4).
func attributeValue(text string) (string, error) {
	digits, encoded := strings.CutPrefix(text, "#")
	if !encoded {
		return unescape(text), nil
	}
	var value any
	der, err := hex.DecodeString(digits)
	if err != nil {
		return "", errors.New(`begins with "#" and is no value in hexadecimal: escape a text's "#" as "\\#"`)
	}
	if rest, err := asn1.Unmarshal(der, &value); err != nil || len(rest) > 0 {
		return "", errors.New(`has after "#" no value in DER`)
	}
	return fmt.Sprint(value), nil
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
