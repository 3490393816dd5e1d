package query

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
)

const (
	// pageMAC is the length of a signature of version 1.
	pageMAC = 16
	// sealedVersion is the first byte of an encrypted token, version 2. A token of version 1 has no version byte and
	// is recognized by its signature.
	sealedVersion = 2
	// maxTokenText bounds a token, as requests do.
	maxTokenText = 4096
	// longValue is the length beyond which a text among the cursor's values is represented by its digest. shortValue
	// is used instead if a token would otherwise be too long.
	longValue  = 256
	shortValue = 32
)

// Pages formats and parses page tokens: opaque, authenticated, and bound to the tenant, the view and the request, so
// that a token cannot be used elsewhere. Version 2 is encrypted; version 1, which is only signed, stays readable. A
// fingerprint of the view's definition follows the cursor; nodes of earlier versions ignore it, and tokens without
// one are accepted.
type Pages struct {
	key    []byte // of version 1
	sealer *token.Sealer
	gate   *token.Gate
}

// NewPages returns a Pages with a key that all nodes share. gate selects the version to issue; nil: the newest.
func NewPages(key []byte, gate *token.Gate) *Pages {
	return &Pages{key: key, sealer: token.NewSealer(key, "page"), gate: gate}
}

// Cursor contains the values of the plan's terms in the last row of a page, the key last. A text that is too long for
// a token is represented by its [Digest].
type Cursor []any

// Digest represents a long text in a token. The row with the cursor's key contains the text.
type Digest string

func digest(text string) Digest {
	sum := sha256.Sum256([]byte(text))
	return Digest(base64.RawURLEncoding.EncodeToString(sum[:16]))
}

// Is reports whether a value is the text that the digest represents.
func (d Digest) Is(value any) bool {
	text, ok := value.(string)
	return ok && digest(text) == d
}

// long is the JSON form of a text that is not written verbatim. One of its members is set.
type long struct {
	SHA256 Digest `json:"sha256,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
}

// Next returns the token of the page after a row with the given values of the plan's terms. Error: [ErrLongKey].
func (p *Pages) Next(scope string, request Request, plan Plan, values []any) (string, error) {
	sealed := p.gate.Sealed()
	forms := []form{{limit: longValue}, {limit: shortValue}, {limit: shortValue, compact: true}}
	if !sealed {
		forms[0].limit = maxTokenText // nodes that read only version 1 cannot read digests
	}
	for _, form := range forms {
		body, err := form.encode(values)
		if err != nil {
			return "", fmt.Errorf("make a page token: %w", err)
		}
		body = binary.BigEndian.AppendUint64(body, plan.Fingerprint)
		var raw []byte
		if sealed {
			raw = p.sealer.Seal([]byte{sealedVersion}, bound(scope, request), body)
		} else {
			raw = append(p.mac(scope, request, body), body...)
		}
		if base64.RawURLEncoding.EncodedLen(len(raw)) <= maxTokenText {
			return base64.RawURLEncoding.EncodeToString(raw), nil
		}
	}
	return "", ErrLongKey
}

// form describes how a token represents texts.
type form struct {
	limit   int  // longer texts, except the key, are represented by their digests
	compact bool // texts of which JSON would escape much are in base64
}

// encode encodes the values of a plan's terms.
func (f form) encode(values []any) ([]byte, error) {
	out := make([]any, len(values))
	for i, value := range values {
		out[i] = value
		text, ok := value.(string)
		switch {
		case !ok:
		case len(text) > f.limit && i < len(values)-1:
			out[i] = long{SHA256: digest(text)}
		case f.compact && text != "":
			out[i] = long{Base64: []byte(text)}
		}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(out)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Parse returns the cursor in a token of a plan. Its error wraps [ErrToken].
func (p *Pages) Parse(text, scope string, request Request, plan Plan) (Cursor, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) <= pageMAC || len(text) > maxTokenText {
		return nil, fmt.Errorf("%w: it was not issued by a query", ErrToken)
	}
	body := raw[pageMAC:]
	if !hmac.Equal(raw[:pageMAC], p.mac(scope, request, body)) {
		err := token.ErrForged
		if raw[0] == sealedVersion {
			body, err = p.sealer.Open(bound(scope, request), raw[1:])
		}
		if err != nil {
			return nil, fmt.Errorf(
				"%w: it is of another query (filter, order, view and tenant must stay the same from page to page)",
				ErrToken,
			)
		}
	}
	return parseCursor(body, plan)
}

func parseCursor(body []byte, plan Plan) (Cursor, error) {
	changed := fmt.Errorf("%w: the view's definition has changed since the previous page: start again", ErrToken)
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var values []any
	if err := decoder.Decode(&values); err != nil || len(values) != len(plan.Terms) {
		return nil, changed
	}
	if rest := body[decoder.InputOffset():]; len(rest) > 0 &&
		(len(rest) != 8 || binary.BigEndian.Uint64(rest) != plan.Fingerprint) {
		return nil, changed
	}
	for i, term := range plan.Terms {
		var ok bool
		if values[i], ok = term.value(values[i]); !ok || i == len(values)-1 && !isText(values[i]) {
			return nil, changed
		}
	}
	return values, nil
}

// value returns v as the bound value of the term's column, or false if its type does not fit.
func (t Term) value(v any) (any, bool) {
	if object, ok := v.(map[string]any); ok {
		if text, ok := object["sha256"].(string); ok {
			return Digest(text), t.text()
		}
		text, ok := object["base64"].(string)
		raw, err := base64.StdEncoding.DecodeString(text)
		return string(raw), ok && err == nil && t.text()
	}
	switch v := model.Normalize(v).(type) {
	case nil:
		return nil, true
	case string:
		return v, t.text()
	case bool:
		return v, t.Type == model.TypeBool
	case int64:
		switch t.Type {
		case model.TypeBool: // as SQLite stores it
			return v != 0, true
		case model.TypeDouble:
			return float64(v), true
		}
		return v, t.Type == model.TypeInt
	case float64:
		return v, t.Type == model.TypeDouble
	}
	return nil, false
}

// text reports whether the term's values are texts.
func (t Term) text() bool { return t.Type == model.TypeString || t.Type == model.TypeTimestamp }

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// Key returns the key of the page's last row.
func (c Cursor) Key() string {
	key, _ := c[len(c)-1].(string)
	return key
}

// Digests reports whether the cursor has digests. [Cursor.Resolve] must replace them before the cursor is used.
func (c Cursor) Digests() bool {
	for _, value := range c {
		if _, ok := value.(Digest); ok {
			return true
		}
	}
	return false
}

// Resolve replaces digests by the values of the row with the cursor's key, in the order of the terms. Error:
// [ErrToken] if the row has changed since.
func (c Cursor) Resolve(values []any) error {
	for i, value := range c {
		d, ok := value.(Digest)
		switch {
		case !ok:
		case i < len(values) && d.Is(values[i]):
			c[i] = values[i]
		default:
			return fmt.Errorf("%w: the row at the end of the previous page has changed: start again", ErrToken)
		}
	}
	return nil
}

// ErrLongKey reports that no page can follow a row whose key is too long for a token.
var ErrLongKey = errors.New("a row's key is too long for a page token: request a larger page, or filter")

// bound returns the text that a token is bound to. The page size and fields may change between pages, the rest may not.
func bound(scope string, request Request) string {
	var b bytes.Buffer
	for _, part := range []string{"page", scope, request.Filter, request.OrderBy} {
		_, _ = fmt.Fprintf(&b, "%d:%s;", len(part), part) // writing to a buffer cannot fail
	}
	return b.String()
}

// mac signs a token's body of version 1.
func (p *Pages) mac(scope string, request Request, body []byte) []byte {
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte(bound(scope, request)))
	h.Write(body)
	return h.Sum(nil)[:pageMAC]
}
