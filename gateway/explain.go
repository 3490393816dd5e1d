package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/edge"
)

// rightExplain is the right to receive the decisions on one's own calls.
const rightExplain = "gateway.explain"

// explain sets the response header with the decision on the call, in the form of an audit record,
// if the client requests it and its principal holds the right. It must be called before the
// response headers are sent.
func (g *Gateway) explain(ctx context.Context, call *Call, err error) {
	if call.Principal == nil || !call.Principal.Holds(rightExplain) ||
		call.Info.RequestHeader().Get(contextkit.HeaderExplain) == "" {
		return
	}
	rc := contextkit.In(ctx)
	if text, failed := json.Marshal(g.auditRecord(rc, call, err)); failed == nil {
		edge.SetHeaders(call.Stream, func() {
			call.Info.ResponseHeader().Set(contextkit.HeaderDecision, asciiJSON(string(text)))
		})
	}
}

// asciiJSON returns the same JSON in visible ASCII and spaces, which a header can carry: other
// characters, which JSON has in strings only, become escapes (RFC 8259 §7).
func asciiJSON(text string) string {
	var out strings.Builder
	out.Grow(len(text))
	for _, r := range text {
		switch {
		case r >= ' ' && r <= '~':
			out.WriteByte(byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}
