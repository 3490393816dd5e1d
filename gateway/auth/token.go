package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// maxTokenBytes bounds a token.
	maxTokenBytes = 16 << 10
	// maxKeyIDBytes bounds a token's kid.
	maxKeyIDBytes = 256
	// maxSubject bounds a token's subject in characters (OpenID Connect Core §2).
	maxSubject = 255
)

// Private claims (RFC 7519 §4.3).
const (
	claimTenants = "tenants" // names, or "*" for all
	claimRights  = "rights"
)

// token is a parsed JWT whose signature has not been verified.
type token struct {
	keyID, algorithm string
	input            string // the signing input (RFC 7515 §5.1): the text before the last dot
	signature        string // base64url
	body             members
	claims           claims
}

// claims are the registered claims (RFC 7519 §4.1).
type claims struct {
	issuer, subject    string
	audience           []string
	id                 string    // jti; "": it is absent
	notBefore, expires time.Time // notBefore is the zero time if it is absent
	issued             int64     // iat in Unix milliseconds; 0: it is absent
}

// parseToken parses a JWT in the JWS compact serialization (RFC 7515 §3.1). It accepts one text for
// a header, claims and a signature: padding, whitespace, stray bits in the last base64url
// character, JSON serializations and encrypted tokens are errors. The error describes the fault; it
// quotes at most 64 characters of a name in the token.
func parseToken(text string) (*token, error) {
	if len(text) > maxTokenBytes {
		return nil, fmt.Errorf("malformed: it is longer than %d bytes", maxTokenBytes)
	}
	parts := strings.SplitN(text, ".", 4)
	if len(parts) != 3 {
		return nil, errors.New("malformed: it does not consist of header, claims and signature")
	}
	t := &token{input: text[:len(parts[0])+1+len(parts[1])], signature: parts[2]}
	header, err := parsePart(parts[0])
	if err != nil {
		return nil, fmt.Errorf("malformed header: %w", err)
	}
	if err := t.readHeader(header); err != nil {
		return nil, err
	}
	if t.body, err = parsePart(parts[1]); err != nil {
		return nil, fmt.Errorf("malformed claims: %w", err)
	}
	if err := t.claims.read(t.body); err != nil {
		return nil, fmt.Errorf("malformed claims: %w", err)
	}
	if _, err := decodePart(parts[2]); err != nil {
		return nil, fmt.Errorf("malformed signature: %w", err)
	}
	return t, nil
}

func parsePart(part string) (members, error) {
	data, err := decodePart(part)
	if err != nil {
		return nil, err
	}
	return parseMembers(data)
}

// decodePart decodes base64url without padding (RFC 7515 §2) in its canonical form (RFC 4648 §3.5).
func decodePart(part string) ([]byte, error) {
	if part == "" || strings.ContainsAny(part, "\r\n") { // the decoder ignores line breaks
		return nil, errors.New("it is not canonical base64url")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("it is not canonical base64url")
	}
	return data, nil
}

// readHeader reads the JOSE header. No extension is supported, so none may be critical (RFC 7515
// §4.1.11), and b64 must not change the signing input (RFC 7797). Keys in the header (jwk, jku,
// x5c, x5u) are ignored: keys come only from the ring.
func (t *token) readHeader(header members) (err error) {
	for _, name := range []string{"crit", "b64"} {
		if value, ok := header[name]; ok {
			return fmt.Errorf("header member %s is not supported: %.64q", name, value)
		}
	}
	if t.algorithm, err = header.text("alg"); err != nil {
		return fmt.Errorf("malformed header: %w", err)
	}
	if t.keyID, err = header.text("kid"); err != nil {
		return fmt.Errorf("malformed header: %w", err)
	}
	if t.keyID == "" || len(t.keyID) > maxKeyIDBytes {
		return fmt.Errorf("malformed header: kid must have 1 to %d bytes", maxKeyIDBytes)
	}
	if _, nested := header["cty"]; nested {
		return errors.New("header member cty is not supported: the token must not contain another token")
	}
	typ, err := header.text("typ")
	if err != nil {
		return fmt.Errorf("malformed header: %w", err)
	}
	// Other types are tokens for other purposes (RFC 8725 §3.11).
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "", "jwt", "at+jwt": // at+jwt: RFC 9068 §2.1
		return nil
	}
	return fmt.Errorf("wrong type: typ is %.64q, not JWT or at+jwt", typ)
}

func (c *claims) read(body members) (err error) {
	if c.subject, err = body.text("sub"); err != nil {
		return err
	}
	if c.issuer, err = body.text("iss"); err != nil {
		return err
	}
	if raw := body["aud"]; len(raw) > 0 && raw[0] == '"' {
		audience, err := body.text("aud")
		if err != nil {
			return err
		}
		c.audience = []string{audience}
	} else if c.audience, err = body.texts("aud"); err != nil {
		return err
	}
	var expires bool
	if c.expires, expires, err = body.date("exp"); err != nil {
		return err
	}
	if !expires {
		return errors.New("exp is missing: the token would never expire")
	}
	if c.notBefore, _, err = body.date("nbf"); err != nil {
		return err
	}
	issued, known, err := body.date("iat")
	if err != nil {
		return err
	}
	if known {
		c.issued = issued.UnixMilli()
	}
	if c.id, err = body.text("jti"); err == nil && len(c.id) > maxTokenID {
		err = fmt.Errorf("jti has more than %d bytes", maxTokenID)
	}
	return err
}

// Reserved subjects of principals, which no token's principal has.
const (
	// AnonymousSubject is the subject of the principal of a call without a credential.
	AnonymousSubject = "anonymous"
	// apiKeySubject is the prefix of an API key's subject.
	apiKeySubject = "key:"
	// tokenSubjectPrefix is the prefix of a token's subject that reads like a reserved one.
	tokenSubjectPrefix = "token:"
)

// tokenSubject returns the subject of the principal of a token. The subjects of tokens, of API keys
// ("key:ID") and of callers without a credential ("anonymous") are disjoint: a token's subject that
// has a reserved prefix (one of the constants above or of further) or is a reserved name, as a
// reader sees it and in any case, is prefixed with "token:".
func tokenSubject(subject string, further []string) (string, error) {
	if utf8.RuneCountInString(subject) > maxSubject {
		return "", fmt.Errorf("sub has more than %d characters", maxSubject)
	}
	visible := strings.ToLower(strings.Map(visible, norm.NFKC.String(subject)))
	begins := func(prefix string) bool { return strings.HasPrefix(visible, prefix) }
	switch {
	case visible == "":
		return "", errors.New("sub is missing")
	case visible == AnonymousSubject, begins(
		apiKeySubject,
	), begins(tokenSubjectPrefix), slices.ContainsFunc(further, begins):
		return tokenSubjectPrefix + subject, nil
	}
	return subject, nil
}

// visible drops characters that a reader does not see, such as spaces, controls and changes of
// writing direction.
func visible(r rune) rune {
	if unicode.IsSpace(r) || !unicode.IsGraphic(r) {
		return -1
	}
	return r
}
