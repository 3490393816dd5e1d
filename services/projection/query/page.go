package query

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/headgate/headgate/model"
)

// pageMAC is the length of a token's signature.
const pageMAC = 16

// Pages makes and reads page tokens: opaque, signed, and tied to the tenant,
// the view and the request, so that a token cannot be carried elsewhere.
type Pages struct{ key []byte }

// NewPages returns pages under a key that all nodes share.
func NewPages(key []byte) *Pages { return &Pages{key: key} }

// Next returns the token of the page after a row with those values of the
// plan's terms.
func (p *Pages) Next(scope string, request Request, values []any) (string, error) {
	body, err := json.Marshal(values)
	if err != nil {
		return "", fmt.Errorf("make a page token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(p.mac(scope, request, body), body...)), nil
}

// parse returns the values in a token of a plan with count terms.
func (p *Pages) parse(token, scope string, request Request, count int) ([]any, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= pageMAC {
		return nil, fmt.Errorf("%w: it is not one that a query answered", ErrToken)
	}
	if !hmac.Equal(raw[:pageMAC], p.mac(scope, request, raw[pageMAC:])) {
		return nil, fmt.Errorf("%w: it is of another query (filter, order, view and tenant must stay the same from page to page)", ErrToken)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw[pageMAC:]))
	decoder.UseNumber()
	var values []any
	if err := decoder.Decode(&values); err != nil || len(values) != count {
		return nil, fmt.Errorf("%w: it is of another version of the view", ErrToken)
	}
	return model.Normalize(values).([]any), nil
}

// mac signs a token's body for a request. The page's size and its fields may
// change between pages, the rest may not.
func (p *Pages) mac(scope string, request Request, body []byte) []byte {
	h := hmac.New(sha256.New, p.key)
	for _, part := range []string{"page", scope, request.Filter, request.OrderBy} {
		_, _ = fmt.Fprintf(h, "%d:%s;", len(part), part) // a hash does not fail
	}
	h.Write(body)
	return h.Sum(nil)[:pageMAC]
}
