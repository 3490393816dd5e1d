package grpcmeta

import (
	"fmt"
	"slices"
	"strings"
)

// MaxNameLength bounds the name of a header that is sent as metadata, in bytes.
const MaxNameLength = 128

// Invalid returns why a header cannot be sent as gRPC metadata, "" if it can. Its name is in
// canonical form or in lower case.
// Source: grpc/doc/PROTOCOL-HTTP2.md, "Custom-Metadata".
func Invalid(name string, values []string) (reason string) {
	if reason := invalidName(name); reason != "" {
		return reason
	}
	if isBinary(name) {
		for _, value := range values {
			for part := range strings.SplitSeq(value, ",") {
				if !isBase64(unpadded(part)) {
					return "its value must be base64, since its name ends in -bin"
				}
			}
		}
		return ""
	}
	for _, value := range values {
		if at := invisible(value); at >= 0 {
			return fmt.Sprintf(
				"its value has the byte 0x%02x, and only visible ASCII and spaces can be sent (headers whose names "+
					"end in -bin carry other bytes, in base64)",
				value[at],
			)
		}
	}
	return ""
}

// Sendable returns the values of a header that can be sent as gRPC metadata, in order; none if
// its name cannot be. Joined binary values are separated, and binary values have no padding.
func Sendable(name string, values []string) []string {
	switch {
	case invalidName(name) != "":
		return nil
	case isBinary(name):
		var parts []string
		for i, value := range values {
			if parts == nil && value == unpadded(value) && isBase64(value) {
				continue // usually it is a single value that needs no change
			}
			if parts == nil {
				parts = slices.Clone(values[:i])
			}
			for part := range strings.SplitSeq(value, ",") {
				if part = unpadded(part); isBase64(part) {
					parts = append(parts, part)
				}
			}
		}
		if parts == nil {
			return values
		}
		return parts
	case slices.ContainsFunc(values, func(value string) bool { return invisible(value) >= 0 }):
		return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return invisible(value) >= 0 })
	}
	return values
}

// invalidName returns why a name cannot be sent: gRPC's are of letters, digits, "-", "_"
// and ".".
func invalidName(name string) string {
	if len(name) > MaxNameLength {
		return fmt.Sprintf("its name has %d bytes, at most %d are allowed", len(name), MaxNameLength)
	}
	if name == "" {
		return "it has no name"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Sprintf(
				"its name has the byte 0x%02x, and only letters, digits, hyphens, underscores and dots can be sent", c,
			)
		}
	}
	return ""
}

// isBinary reports whether the values under a name are base64.
func isBinary(name string) bool {
	at := len(name) - len(binarySuffix)
	return at >= 0 && strings.EqualFold(name[at:], binarySuffix)
}

// unpadded returns a part of a binary value without the space and the padding around it.
func unpadded(part string) string {
	part = strings.Trim(part, " \t")
	if len(part)%4 == 0 {
		for range 2 {
			part = strings.TrimSuffix(part, "=")
		}
	}
	return part
}

// isBase64 reports whether a value is base64 without padding (RFC 4648 §4). Bits that are
// left over must be zero (§3.5): some implementations of gRPC refuse others.
func isBase64(value string) bool {
	rest := byte(0)
	for i := range len(value) {
		digit := base64Digits[value[i]]
		if digit == 0 {
			return false
		}
		rest = digit - 1
	}
	switch len(value) % 4 {
	case 1:
		return false
	case 2:
		return rest&0xf == 0
	case 3:
		return rest&0x3 == 0
	}
	return true
}

// base64Digits maps each digit to its value plus one.
var base64Digits = func() (table [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = byte(i + 1)
	}
	return table
}()

// invisible returns the index of the first byte that is neither visible ASCII nor a space, or
// -1 (see grpc/doc/PROTOCOL-HTTP2.md, "ASCII-Value").
func invisible(value string) int {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return i
		}
	}
	return -1
}
