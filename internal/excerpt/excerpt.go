// Package excerpt truncates text that a request supplies before the text is stored, logged or returned: a resource, a
// field's value, an error that quotes its input.
//
// A bound counts the bytes of the text once it is encoded, in the larger of the two encodings that such text gets: a
// JSON string as [encoding/json] writes it, and gRPC's percent-encoded grpc-message. A text of control characters or
// quotes therefore cannot grow past its bound on the wire, at rest or in a log. The package itself does not encode or
// escape: it returns the beginning of the text, unchanged.
package excerpt

import (
	"fmt"
	"unicode/utf8"
)

// Bounds of common texts, in encoded bytes.
const (
	// Name bounds a name or identifier that a request supplies.
	Name = 256
	// Message bounds an error's message.
	Message = 2 << 10
)

// Maximum encoded bytes per byte.
const (
	plain   = 1
	escaped = 2 // JSON: \" and \\
	percent = 3 // grpc-message: %XX
	unicode = 6 // JSON: \u00XX, and \ufffd in place of a byte that is not UTF-8
)

// markRoom is the size of the longest mark: "…(N bytes)".
const markRoom = 3*percent + len("(9223372036854775807 bytes)")

// Text returns text if its encoded size is at most bound, else a copy of its beginning, truncated between two runes
// and followed by a mark with the text's length: "wallet-000…(97280 bytes)". The encoded size of the result, mark
// included, is at most bound; a bound below 64 counts as 64. A text that fits is returned without an allocation; the
// copy holds no reference to text.
func Text(text string, bound int) string {
	if len(text)*unicode <= bound {
		return text
	}
	bound = max(bound, 64)
	size, cut := 0, 0 // cut is the last index at which the mark still fits
	for i := 0; i < len(text); {
		width, cost := cost(text[i:])
		if size += cost; size > bound {
			return fmt.Sprintf("%s…(%d bytes)", text[:cut], len(text))
		}
		if i += width; size <= bound-markRoom {
			cut = i
		}
	}
	return text
}

// cost returns the length of the first rune of a text and its encoded size.
func cost(text string) (width, size int) {
	switch c := text[0]; {
	case c < ' ', c == 0x7f, c == '<', c == '>', c == '&':
		return 1, unicode
	case c == '"', c == '\\':
		return 1, escaped
	case c == '%':
		return 1, percent
	case c < utf8.RuneSelf:
		return 1, plain
	}
	if r, width := utf8.DecodeRuneInString(text); r != utf8.RuneError || width > 1 {
		return width, percent * width
	}
	return 1, unicode
}
