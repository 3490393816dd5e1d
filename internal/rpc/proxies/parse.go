package proxies

import (
	"net/netip"
	"strings"
)

// entries are the members of a list in the lines of a header (RFC 9110 §5.6.1), read from the
// last one. Text that a client wrote stands on the left of what proxies have added, so it cannot
// change how that is read: not by a quoted string without an end either.
type entries struct {
	lines []string // that have not been read to their beginning
	rest  string   // of the last of them
}

func newEntries(lines []string) entries {
	e := entries{lines: lines}
	if len(lines) > 0 {
		e.rest = lines[len(lines)-1]
	}
	return e
}

// next returns the next member towards the beginning, without white space around it. It may be
// empty.
func (e *entries) next() (text string, ok bool) {
	if len(e.lines) == 0 {
		return "", false
	}
	if at := lastOutside(e.rest, ','); at >= 0 {
		text, e.rest = e.rest[at+1:], e.rest[:at]
		return strings.Trim(text, " \t"), true
	}
	text, e.lines = e.rest, e.lines[:len(e.lines)-1]
	if len(e.lines) > 0 {
		e.rest = e.lines[len(e.lines)-1]
	}
	return strings.Trim(text, " \t"), true
}

// lastOutside returns the index of the last separator that is not in a quoted string (RFC 9110
// §5.6.4), -1 if there is none.
func lastOutside(text string, separator byte) int {
	quoted := false
	for i := len(text) - 1; i >= 0; i-- {
		switch {
		case text[i] == '"' && (!quoted || !escaped(text, i)):
			quoted = !quoted
		case text[i] == separator && !quoted:
			return i
		}
	}
	return -1
}

// escaped reports whether the byte at i follows an odd number of backslashes.
func escaped(text string, i int) bool {
	n := 0
	for i > n && text[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// parseElement parses a forwarded-element (RFC 7239 §4), which must name an address.
func parseElement(text string) (Origin, bool) {
	var origin Origin
	for text != "" {
		pair := text
		if at := lastOutside(text, ';'); at >= 0 {
			text, pair = text[:at], text[at+1:]
		} else {
			text = ""
		}
		if pair = strings.Trim(pair, " \t"); pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return Origin{}, false
		}
		if value, ok = unquoted(value); !ok {
			return Origin{}, false
		}
		switch {
		case strings.EqualFold(name, "for"):
			addr, ok := parseNode(value)
			if !ok || origin.Client.IsValid() { // "for" occurs once at most
				return Origin{}, false
			}
			origin.Client = addr
		case strings.EqualFold(name, "proto"):
			origin.Scheme = scheme(value)
		}
	}
	return origin, origin.Client.IsValid()
}

// unquoted returns the text of a token or quoted string. A token may have the colons and
// brackets of an IPv6 address, which some proxies do not quote.
func unquoted(value string) (string, bool) {
	inner, begins := strings.CutPrefix(value, `"`)
	if !begins {
		return value, value != "" && !strings.ContainsAny(value, "\" \t")
	}
	inner, ends := strings.CutSuffix(inner, `"`)
	if !ends {
		return "", false
	}
	if !strings.ContainsAny(inner, `"\`) {
		return inner, true
	}
	var out strings.Builder
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(inner) {
				return "", false
			}
		}
		out.WriteByte(inner[i])
	}
	return out.String(), true
}

// parseNode parses the address of a node (RFC 7239 §6): IPv4, or IPv6 with or without brackets,
// each with or without a port; the port of IPv6 needs the brackets. The address has no zone, which
// means something on the proxy alone. "unknown", obfuscated identifiers and addresses that no
// client has (unspecified, multicast) are not accepted.
func parseNode(text string) (netip.Addr, bool) {
	host, port := text, ""
	ported := false
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if host, port, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(host, ":") {
			return netip.Addr{}, false
		}
		if port != "" {
			if port, ported = strings.CutPrefix(port, ":"); !ported {
				return netip.Addr{}, false
			}
		}
	} else if strings.Count(text, ":") == 1 {
		host, port, ported = strings.Cut(text, ":")
	}
	if ported && !isPort(port) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, false
	}
	addr = addr.WithZone("").Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, false
	}
	return addr, true
}

// isPort reports whether a text is a node-port (RFC 7239 §6): one to five digits, or an obfuscated
// identifier.
func isPort(text string) bool {
	if name, obfuscated := strings.CutPrefix(text, "_"); obfuscated {
		return name != "" &&
			strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
	}
	return text != "" && len(text) <= 5 && strings.Trim(text, "0123456789") == ""
}
