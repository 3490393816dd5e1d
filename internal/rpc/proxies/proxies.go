// Package proxies finds the address of a request's client behind trusted proxies.
//
// Proxies record the address of the peer that connected to them at the end of Forwarded
// (RFC 7239) or X-Forwarded-For, and any client can send these headers too. Entries are therefore
// read from the right, where the nearest proxy has written, and only while the peer that wrote
// them is trusted: the client is the right-most address that is not a trusted proxy's. The
// headers of any other peer are ignored, and so is the header that is not configured, which a
// proxy that does not know it passes on as the client wrote it.
package proxies

import (
	"net/netip"
	"strings"

	"github.com/headgate/headgate/internal/config"
)

// Headers that proxies record addresses in.
const (
	HeaderXForwardedFor = "x-forwarded-for"
	HeaderForwarded     = "forwarded"
)

const (
	// maxTrusted bounds the configured prefixes, which are compared one by one.
	maxTrusted = 1024
	// maxEntries bounds the entries of a request that are read, from the right.
	maxEntries = 32
)

// Config names the trusted proxies.
type Config struct {
	// Trusted are the prefixes of their addresses (CIDR, RFC 4632), or single addresses.
	Trusted []string `yaml:"trusted"`
	// Header is the header that they record addresses in: [HeaderXForwardedFor], also if it is
	// "", or [HeaderForwarded]. The other one is ignored.
	Header string `yaml:"header"`
}

// Set is a set of trusted proxies. nil is the empty set. It may be used concurrently.
type Set struct {
	trusted   []netip.Prefix
	forwarded bool // else X-Forwarded-For
}

// New returns the set that the configuration names, nil if it names none. Errors are
// [config.FieldError].
func New(c Config) (*Set, error) {
	s := &Set{}
	switch strings.ToLower(c.Header) {
	case HeaderForwarded:
		s.forwarded = true
	case HeaderXForwardedFor, "":
	default:
		return nil, config.Wrong("header", "is %q, want %s or %s", c.Header, HeaderXForwardedFor, HeaderForwarded)
	}
	if len(c.Trusted) > maxTrusted {
		return nil, config.Wrong("trusted", "has %d prefixes, want at most %d", len(c.Trusted), maxTrusted)
	}
	for _, text := range c.Trusted {
		prefix, err := parsePrefix(text)
		switch {
		case err != nil:
			return nil, config.Wrong("trusted", "has %q, want a prefix such as 10.0.0.0/8 or an address", text)
		case prefix.Bits() == 0:
			return nil, config.Wrong("trusted",
				"has %q, which trusts every client to name any address: name the proxies' networks", text)
		}
		s.trusted = append(s.trusted, prefix.Masked())
	}
	if len(s.trusted) == 0 {
		return nil, nil //nolint:nilnil // the empty set
	}
	return s, nil
}

// mappedBits is the length of the prefix of IPv4 addresses within IPv6 (RFC 4291 §2.5.5.2).
const mappedBits = 96

// parsePrefix parses a prefix or an address. An IPv4-mapped one becomes one of IPv4.
func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Addr().Is4In6() {
		return netip.PrefixFrom(prefix.Addr().Unmap(), max(prefix.Bits()-mappedBits, 0)), nil
	}
	return prefix, err
}

// Trusts reports whether the address is a trusted proxy's.
func (s *Set) Trusts(addr netip.Addr) bool {
	if s == nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, prefix := range s.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Origin is the origin of a request that a trusted proxy has forwarded.
type Origin struct {
	// Client is the client's address, without a zone. If an entry is no address (unknown, or an
	// obfuscated identifier), it is the address of the proxy that has written the entry.
	Client netip.Addr
	// Scheme is the scheme that the client used, "http" or "https"; "": unknown.
	Scheme string
}

// Origin returns the origin of a request from a trusted proxy. values returns the values of a
// header, whose name is in canonical form, in the order of their lines.
func (s *Set) Origin(peer netip.Addr, values func(name string) []string) Origin {
	origin := Origin{Client: peer.Unmap().WithZone("")}
	name, parse := "X-Forwarded-For", parseAddress
	if s.forwarded {
		name, parse = "Forwarded", parseElement
	}
	entries := newEntries(values(name))
	for range maxEntries {
		text, ok := entries.next()
		if !ok {
			break
		}
		if text == "" {
			continue
		}
		entry, ok := parse(text)
		if !ok {
			break
		}
		origin = entry
		if !s.Trusts(entry.Client) {
			break
		}
	}
	if s.forwarded {
		return origin // its elements have the scheme
	}
	protocols := newEntries(values("X-Forwarded-Proto"))
	if last, ok := protocols.next(); ok { // of the nearest proxy
		origin.Scheme = scheme(last)
	}
	return origin
}

// parseAddress parses an entry of X-Forwarded-For.
func parseAddress(text string) (Origin, bool) {
	addr, ok := parseNode(text)
	return Origin{Client: addr}, ok
}

func scheme(text string) string {
	for _, known := range [...]string{"https", "http"} {
		if strings.EqualFold(text, known) {
			return known
		}
	}
	return ""
}
