package webhook

import (
	"errors"
	"net/netip"
	"syscall"
)

var errPrivate = errors.New("the address is not of the public internet")

// refusePrivate rejects connections to addresses that are not of the public internet.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || !public(addr.Addr()) {
		return errPrivate
	}
	return nil
}

// public reports whether an address is one of the public internet: global unicast, and in none of the ranges of the
// IANA registries of special-purpose addresses (RFC 6890) that are not globally reachable, or that lead to another
// address.
func public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	if addr.Is6() && !globalUnicast6.Contains(addr) {
		return false
	}
	for _, special := range specialRanges {
		if special.Contains(addr) {
			return false
		}
	}
	return true
}

// globalUnicast6 contains every IPv6 address that is assigned for global unicast (RFC 4291 §2.4, IANA). Outside it
// are the IPv4-compatible (::/96), translated (64:ff9b::/96 and 64:ff9b:1::/48), discard-only (100::/64),
// segment-routing (5f00::/16), unique local (fc00::/7) and site-local (fec0::/10) addresses.
var globalUnicast6 = netip.MustParsePrefix("2000::/3")

var specialRanges = func() []netip.Prefix {
	var out []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8",       // this network, RFC 791
		"100.64.0.0/10",   // shared, RFC 6598
		"192.0.0.0/24",    // protocol assignments, RFC 6890
		"192.0.2.0/24",    // documentation, RFC 5737
		"192.31.196.0/24", // AS112, RFC 7535
		"192.52.193.0/24", // automatic multicast tunneling, RFC 7450
		"192.88.99.0/24",  // 6to4 relays, RFC 7526
		"192.175.48.0/24", // AS112, RFC 7534
		"198.18.0.0/15",   // benchmarks, RFC 2544
		"198.51.100.0/24", // documentation, RFC 5737
		"203.0.113.0/24",  // documentation, RFC 5737
		"240.0.0.0/4",     // reserved, RFC 1112
		"2001::/23",       // protocol assignments, RFC 2928: Teredo, ORCHID, benchmarks and others
		"2001:db8::/32",   // documentation, RFC 3849
		"2002::/16",       // 6to4, which leads to any IPv4 address, RFC 3056
		"2620:4f:8000::/48",
		"3ffe::/16", // the former 6bone, RFC 3701
		"3fff::/20", // documentation, RFC 9637
	} {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}()
