package contextkit

import (
	"net/netip"
	"strings"
)

// Principal returns the decoded subject of the gateway's caller from a call to a node; "" if
// the call did not come from a gateway, or names more than one subject.
func Principal(md Metadata) string {
	if values := md.Values(canonicalPrincipal); len(values) == 1 {
		return DecodeText(values[0])
	}
	return ""
}

// ViaGateway reports whether a call to a node has the headers of a gateway: gateways name the principal
// of every call, "" if the method is public.
func ViaGateway(md Metadata) bool { return len(md.Values(canonicalPrincipal)) > 0 }

// Client returns the address of the gateway's client from a call to a node; the zero value if the
// call did not come from a gateway, or names no address or more than one.
func Client(md Metadata) netip.Addr {
	values := md.Values(canonicalClient)
	if len(values) != 1 {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(values[0])
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// FromPlatform reports whether the caller of a node is the platform itself, as the gateway states
// it; false if the call did not come from a gateway.
func FromPlatform(md Metadata) bool {
	values := md.Values(canonicalPlatform)
	return len(values) == 1 && values[0] == "1"
}

const upperHex = "0123456789ABCDEF"

// EncodeText returns any text as the value of a header. Visible ASCII and inner spaces are
// unchanged; "%", every other byte, and spaces at either end become "%" and two upper-case
// hexadecimal digits (RFC 3986 §2.1), since gRPC sends printable ASCII alone and HTTP strips
// outer spaces. It allocates nothing for text that is unchanged.
func EncodeText(text string) string {
	first := 0
	for first < len(text) && staysText(text, first) {
		first++
	}
	if first == len(text) {
		return text
	}
	var out strings.Builder
	out.Grow(len(text) + 2*(len(text)-first))
	out.WriteString(text[:first])
	for i := first; i < len(text); i++ {
		c := text[i]
		if staysText(text, i) {
			out.WriteByte(c)
			continue
		}
		out.WriteByte('%')
		out.WriteByte(upperHex[c>>4])
		out.WriteByte(upperHex[c&0xf])
	}
	return out.String()
}

// staysText reports whether the byte at i is unchanged.
func staysText(text string, i int) bool {
	c := text[i]
	return c > ' ' && c <= '~' && c != '%' || c == ' ' && i > 0 && i < len(text)-1
}

// DecodeText returns the text of a value that [EncodeText] made. A "%" without two hexadecimal
// digits after it is unchanged.
func DecodeText(value string) string {
	first := strings.IndexByte(value, '%')
	if first < 0 {
		return value
	}
	var out strings.Builder
	out.Grow(len(value))
	out.WriteString(value[:first])
	for i := first; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			high, ok1 := fromHex(value[i+1])
			low, ok2 := fromHex(value[i+2])
			if ok1 && ok2 {
				out.WriteByte(high<<4 | low)
				i += 2
				continue
			}
		}
		out.WriteByte(value[i])
	}
	return out.String()
}

func fromHex(c byte) (byte, bool) {
	if c >= 'A' && c <= 'F' {
		return c - 'A' + 10, true
	}
	return fromLowerHex(c)
}
