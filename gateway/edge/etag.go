package edge

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/gateway/transcode"
)

// tagged reports whether the answer has an entity tag: the method's policy requests it, and the
// request is a GET or HEAD.
func (s *stream) tagged() bool {
	return s.binding.method.ETag != nil && s.binding.verb == http.MethodGet
}

// entityTag returns the weak entity tag (RFC 9110 §8.8.1) of an answer. Answers that are equal
// except for the field except have the same tag, in every content encoding.
func entityTag(wire []byte, except protowire.Number) string {
	hash := sha256.New()
	for rest := wire; len(rest) > 0; {
		number, _, tag, size := transcode.ConsumeField(rest)
		if size < 0 {
			return "" // the answer is malformed; writing it returns the error
		}
		if number != except {
			_, _ = hash.Write(rest[:tag+size]) // it never fails
		}
		rest = rest[tag+size:]
	}
	return `W/"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:18]) + `"`
}

// unchanged sets the entity tag and, if the client already has the answer, writes 304 without a
// body (RFC 9110 §13.1.2). It reports whether it wrote the answer.
func (s *unary) unchanged(w http.ResponseWriter) bool {
	header := w.Header()
	header.Set("ETag", s.tag)
	header.Del("Last-Modified")
	if !matchesTag(s.request.Header.Values("If-None-Match"), s.tag) {
		return false
	}
	header.Del("Content-Type")
	header.Add(headerVary, "Accept-Encoding")
	w.WriteHeader(http.StatusNotModified)
	return true
}

// matchesTag compares entity tags by the weak comparison (RFC 9110 §8.8.3.2).
func matchesTag(values []string, tag string) bool {
	opaque := strings.TrimPrefix(tag, "W/")
	for _, value := range values {
		for rest := strings.TrimLeft(value, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
			if rest[0] == '*' {
				return true
			}
			rest = strings.TrimPrefix(rest, "W/")
			if rest == "" || rest[0] != '"' {
				break
			}
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				break
			}
			if rest[:end+2] == opaque {
				return true
			}
			rest = rest[end+2:]
		}
	}
	return false
}
