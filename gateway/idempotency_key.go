package gateway

import (
	"fmt"
	"strings"

	"github.com/headgate/headgate/internal/excerpt"
)

// headerKey is the header of an idempotency key (draft-ietf-httpapi-idempotency-key-header).
const headerKey = "Idempotency-Key"

// setKey fills the policy's idempotency field from the Idempotency-Key header. A request that has
// both must have the same key in both.
func (c *Call) setKey() error {
	key, err := c.First.Text(c.Method.KeyField, "")
	if err != nil {
		return c.fieldError(c.Method.KeyField, err)
	}
	field := c.Method.Input.Descriptor().Fields().ByNumber(c.Method.KeyField).Name()
	for _, value := range c.Info.RequestHeader().Values(headerKey) {
		given, ok := keyOf(value)
		switch {
		case !ok:
			return invalidField(
				string(field),
				fmt.Sprintf("the header %s is %q: send a key of printable ASCII characters, with or without quotes",
					headerKey, excerpt.Text(value, excerpt.Name)),
			)
		case key == "":
			key = given
			c.First.AppendText(c.Method.KeyField, key)
		case key != given:
			return invalidField(
				string(field),
				fmt.Sprintf("the header %s is %q, and the field or another header has another key", headerKey,
					excerpt.Text(value, excerpt.Name)),
			)
		}
	}
	c.HasKey = key != ""
	return nil
}

// keyOf returns the key in a header's value: a structured-field string (RFC 9651 §3.3.3) in quotes,
// or the bare characters.
func keyOf(value string) (string, bool) {
	text := strings.Trim(value, " \t")
	if inner, quoted := strings.CutPrefix(text, `"`); quoted {
		inner, closed := strings.CutSuffix(inner, `"`)
		if !closed || strings.HasSuffix(inner, `\`) && !strings.HasSuffix(inner, `\\`) {
			return "", false
		}
		text = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(inner)
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return "", false
		}
	}
	return text, text != ""
}
