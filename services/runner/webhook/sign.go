package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"strings"
)

// Signed is the part of a call that its signature covers, as its receiver sees it.
type Signed struct {
	// Method is the HTTP method, and Host the Host header, in lower case.
	Method, Host string
	// Path is the request target in origin form (RFC 9112 §3.2.1): the path as it was sent, and the
	// query after a question mark, if there is one.
	Path string
	// Tenant, Key and Timestamp are the values of X-Tenant-Id, Idempotency-Key and
	// X-Headgate-Timestamp (Unix seconds).
	Tenant, Key, Timestamp string
	// Body is the body's bytes.
	Body []byte
}

// Sign returns the value of X-Headgate-Signature with the secret of the receiver's host: "v2=" and the hexadecimal
// HMAC-SHA-256 of these lines, each of which ends with a line feed: v2, the method, the host, the path, the tenant,
// the key, the timestamp, the hexadecimal SHA-256 of the body.
func Sign(secret []byte, s Signed) string {
	sum := sha256.Sum256(s.Body)
	mac := hmac.New(sha256.New, secret)
	for _, line := range []string{
		"v2", s.Method, strings.ToLower(s.Host), s.Path, s.Tenant, s.Key, s.Timestamp, hex.EncodeToString(sum[:]),
	} {
		_, _ = io.WriteString(mac, line+"\n") // writing to a hash cannot fail; no value contains a line feed
	}
	return "v2=" + hex.EncodeToString(mac.Sum(nil))
}

// HostSecret returns the secret of a host (without port, in any case), with which its receiver verifies signatures:
// the hexadecimal HMAC-SHA-256 of "headgate webhook host\n" and the host in lower case, keyed with the runner's
// secret. A receiver cannot derive the secrets of others from its own.
func HostSecret(secret []byte, host string) string {
	mac := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(mac,
		"headgate webhook host\n"+strings.TrimSuffix(strings.ToLower(host), ".")) // writing to a hash cannot fail
	return hex.EncodeToString(mac.Sum(nil))
}

// requestTarget returns the path that is signed.
func requestTarget(address *url.URL) string { return address.RequestURI() }
