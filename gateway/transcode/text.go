package transcode

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string, and returns false if it is not UTF-8.
func appendString(dst, s []byte) ([]byte, bool) {
	start := plain(s)
	if start == len(s) { // the usual case
		n := len(dst)
		dst = slices.Grow(dst, len(s)+2)[:n+len(s)+2]
		dst[n] = '"'
		copy(dst[n+1:], s)
		dst[len(dst)-1] = '"'
		return dst, true
	}
	if !utf8.Valid(s[start:]) { // the part before start is ASCII
		return dst, false
	}
	dst = append(append(dst, '"'), s[:start]...)
	for i := start; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		i = start + plain(s[start:])
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"'), true
}

// quoted returns a name of a descriptor, which is valid UTF-8, as a JSON string.
func quoted(name string) []byte {
	text, _ := appendString(nil, []byte(name))
	return text
}

// Words of eight equal bytes.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns the length of a prefix of s that needs no escaping in JSON: ASCII without control
// characters, quotes and backslashes. It may stop early.
// Source: https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord
func plain(s []byte) int {
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		word := binary.LittleEndian.Uint64(s[n:])
		quotes, backslashes := word^(ones*'"'), word^(ones*'\\')
		// The comparison sets the high bit of a byte that is itself not ASCII, less than a space,
		// or equal to the compared character.
		if (word|(word-ones*' ')|(quotes-ones)|(backslashes-ones))&highs != 0 {
			return n
		}
	}
	for ; n < len(s); n++ {
		if c := s[n]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return n
		}
	}
	return n
}

// appendFloat appends a number in ECMAScript's format, and special values as ProtoJSON's strings.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	// Most numbers are integers, for which this is many times faster; up to 2^24 it is also the
	// shortest form of a float32, up to 10^15 of a float64.
	limit := int64(1e15)
	if bits == 32 {
		limit = 1 << 24
	}
	if i := int64(f); float64(i) == f && i > -limit && i < limit && (i != 0 || !math.Signbit(f)) {
		return strconv.AppendInt(dst, i, 10)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 &&
		((bits == 64 && (abs < 1e-6 || abs >= 1e21)) || (bits == 32 && (float32(abs) < 1e-6 || float32(abs) >= 1e21))) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, bits)
	if format == 'e' {
		// e-09 is written e-9.
		if n := len(dst); n >= 4 && dst[n-4] == 'e' && (dst[n-3] == '-' || dst[n-3] == '+') && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
	}
	return dst
}
