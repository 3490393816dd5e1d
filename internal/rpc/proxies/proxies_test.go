package proxies_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/rpc/proxies"
)

var trusted = []string{"10.0.0.0/8", "2001:db8:ffff::/48", "192.0.2.7"}

func open(t testing.TB, header string) *proxies.Set {
	t.Helper()
	set, err := proxies.New(proxies.Config{Trusted: trusted, Header: header})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// originOf returns the client and the scheme of a request of the proxy 10.0.0.1.
func originOf(set *proxies.Set, header http.Header) (string, string) {
	origin := set.Origin(netip.MustParseAddr("10.0.0.1"), func(name string) []string { return header[name] })
	return origin.Client.String(), origin.Scheme
}

func TestOrigin_XForwardedFor(t *testing.T) {
	set := open(t, proxies.HeaderXForwardedFor)
	for name, tc := range map[string]struct {
		lines []string
		want  string
	}{
		"no header":                         {nil, "10.0.0.1"},
		"one address":                       {[]string{"203.0.113.9"}, "203.0.113.9"},
		"the client forges entries":         {[]string{"198.51.100.1, 127.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		"the client forges trusted entries": {[]string{"10.0.0.9, 10.0.0.8, 203.0.113.9"}, "203.0.113.9"},
		"several proxies": {
			[]string{"198.51.100.1, 203.0.113.9, 10.0.0.3, 192.0.2.7"}, "203.0.113.9",
		},
		"several lines": {
			[]string{"198.51.100.1", "203.0.113.9, 10.0.0.3", "10.0.0.2"}, "203.0.113.9",
		},
		"an own line of the client":       {[]string{"198.51.100.1", "203.0.113.9"}, "203.0.113.9"},
		"all are trusted":                 {[]string{"10.9.9.9, 10.0.0.3"}, "10.9.9.9"},
		"a port":                          {[]string{"203.0.113.9:4711"}, "203.0.113.9"},
		"an obfuscated port":              {[]string{"203.0.113.9:_x"}, "203.0.113.9"},
		"IPv6":                            {[]string{"2001:db8::9"}, "2001:db8::9"},
		"IPv6 in brackets":                {[]string{"[2001:db8::9]"}, "2001:db8::9"},
		"IPv6 with a port":                {[]string{"[2001:db8::9]:443"}, "2001:db8::9"},
		"IPv6 with a zone":                {[]string{"fe80::9%eth0"}, "fe80::9"},
		"a zone is not copied":            {[]string{"fe80::9%\"><script>"}, "fe80::9"},
		"a trusted IPv6 proxy":            {[]string{"203.0.113.9, [2001:db8:ffff::1]:1"}, "203.0.113.9"},
		"IPv4 in IPv6":                    {[]string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		"a trusted proxy as IPv4 in IPv6": {[]string{"203.0.113.9, ::ffff:10.0.0.3"}, "203.0.113.9"},
		"white space and empty entries":   {[]string{" 203.0.113.9 ,\t, 10.0.0.3 ,, "}, "203.0.113.9"},
		"unknown":                         {[]string{"203.0.113.9, unknown, 10.0.0.3"}, "10.0.0.3"},
		"an obfuscated identifier":        {[]string{"203.0.113.9, _hidden"}, "10.0.0.1"},
		"garbage left of the client": {
			[]string{"\"<script>, ${jndi:ldap://x}, 203.0.113.9"}, "203.0.113.9",
		},
		"an open quote left of the client": {[]string{"\"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		"leading zeros":                    {[]string{"203.0.113.009"}, "10.0.0.1"},
		"five numbers":                     {[]string{"203.0.113.9.1"}, "10.0.0.1"},
		"a name":                           {[]string{"localhost"}, "10.0.0.1"},
		"a prefix":                         {[]string{"203.0.113.0/24"}, "10.0.0.1"},
		"a port without digits":            {[]string{"203.0.113.9:"}, "10.0.0.1"},
		"a port that is text":              {[]string{"203.0.113.9:http"}, "10.0.0.1"},
		"text after the brackets":          {[]string{"[2001:db8::9]x"}, "10.0.0.1"},
		"IPv4 in brackets":                 {[]string{"[203.0.113.9]"}, "10.0.0.1"},
		"an open bracket":                  {[]string{"[2001:db8::9"}, "10.0.0.1"},
		"unspecified":                      {[]string{"0.0.0.0"}, "10.0.0.1"},
		"multicast":                        {[]string{"ff02::1"}, "10.0.0.1"},
		"a thousand forged entries": {
			[]string{strings.Repeat("10.0.0.8, ", 1000) + "203.0.113.9"}, "203.0.113.9",
		},
		"more trusted entries than are read": {
			[]string{"203.0.113.9" + strings.Repeat(", 10.0.0.8", 32)}, "10.0.0.8",
		},
		"more empty entries than are read":       {[]string{"203.0.113.9" + strings.Repeat(",", 4000)}, "10.0.0.1"},
		"Forwarded's syntax":                     {[]string{"for=203.0.113.9"}, "10.0.0.1"},
		"a line without text, and one before it": {[]string{"203.0.113.9", ""}, "203.0.113.9"},
	} {
		header := http.Header{
			"X-Forwarded-For": tc.lines, "Forwarded": {"for=198.51.100.66"}, "X-Real-Ip": {"198.51.100.66"},
		}
		if got, _ := originOf(set, header); got != tc.want {
			t.Errorf("%s: %q is from %s, want %s", name, tc.lines, got, tc.want)
		}
	}
}

func TestOrigin_Forwarded(t *testing.T) {
	set := open(t, proxies.HeaderForwarded)
	for name, tc := range map[string]struct {
		lines        []string
		want, scheme string
	}{
		"no header": {nil, "10.0.0.1", ""},
		"RFC 7239 §4": {
			[]string{"for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"}, "198.51.100.17",
			"http",
		},
		"names in any case": {
			[]string{"By=10.0.0.1;FOR=203.0.113.9;PROTO=HTTPS"}, "203.0.113.9", "https",
		},
		"IPv6 is quoted":      {[]string{`for="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17", ""},
		"IPv6 without quotes": {[]string{`for=[2001:db8::9]:1`}, "2001:db8::9", ""},
		"a quoted pair":       {[]string{`for="203.0.113\.9"`}, "203.0.113.9", ""},
		"separators in quotes": {
			[]string{`for=198.51.100.1, host="a, for=198.51.100.66;b";for=203.0.113.9`}, "203.0.113.9", "",
		},
		"an escaped quote": {
			[]string{`for=198.51.100.1, host="a\", for=198.51.100.66";for=203.0.113.9`}, "203.0.113.9", "",
		},
		"escaped backslashes": {
			[]string{`for=198.51.100.1, host="a\\";for=203.0.113.9`}, "203.0.113.9", "",
		},
		"several proxies": {
			[]string{`for=198.51.100.1, for=203.0.113.9;proto=https, for=10.0.0.3;proto=http`}, "203.0.113.9", "https",
		},
		"several lines": {
			[]string{`for=203.0.113.9;proto=https`, `for="[2001:db8:ffff::1]"`, "for=10.0.0.3"}, "203.0.113.9", "https",
		},
		"an open quote of the client":        {[]string{`for="198.51.100.1, for=203.0.113.9`}, "203.0.113.9", ""},
		"an open quote before one in quotes": {[]string{`for="198.51.100.1\, for="[2001:db8::9]"`}, "2001:db8::9", ""},
		"an open quote on its own line":      {[]string{`for="198.51.100.1`, `for=203.0.113.9`}, "203.0.113.9", ""},
		"unknown":                            {[]string{"for=203.0.113.9, for=unknown"}, "10.0.0.1", ""},
		"an obfuscated identifier": {
			[]string{"for=203.0.113.9, for=_SEVKISEK, for=10.0.0.3;proto=https"}, "10.0.0.3", "https",
		},
		"for is missing":           {[]string{"for=203.0.113.9, proto=https"}, "10.0.0.1", ""},
		"for occurs twice":         {[]string{"for=203.0.113.9;for=198.51.100.1"}, "10.0.0.1", ""},
		"no pair":                  {[]string{"203.0.113.9"}, "10.0.0.1", ""},
		"no value":                 {[]string{"for="}, "10.0.0.1", ""},
		"a quote in a token":       {[]string{`for=203.0.113.9"`}, "10.0.0.1", ""},
		"a quote without an end":   {[]string{`for="203.0.113.9`}, "10.0.0.1", ""},
		"an unknown scheme":        {[]string{"for=203.0.113.9;proto=javascript"}, "203.0.113.9", ""},
		"empty pairs and elements": {[]string{"for=203.0.113.9;;proto=https; , ,"}, "203.0.113.9", "https"},
		"the client forges elements": {
			[]string{strings.Repeat("for=10.0.0.8,", 1000) + "for=203.0.113.9"}, "203.0.113.9", "",
		},
	} {
		header := http.Header{
			"Forwarded": tc.lines, "X-Forwarded-For": {"198.51.100.66"}, "X-Forwarded-Proto": {"https"},
		}
		if got, scheme := originOf(set, header); got != tc.want || scheme != tc.scheme {
			t.Errorf("%s: %q is from %s by %q, want %s by %q", name, tc.lines, got, scheme, tc.want, tc.scheme)
		}
	}
}

func TestOrigin_TheSchemeIsThatOfTheNearestProxy(t *testing.T) {
	set := open(t, "")
	for text, want := range map[string]string{
		"https": "https", "HTTP": "http", "https, http": "http", "http,https": "https", "wss": "", "": "",
	} {
		if _, got := originOf(set, http.Header{"X-Forwarded-Proto": {text}}); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestTrusted_TrustsPrefixesAndAddresses(t *testing.T) {
	set := open(t, "")
	for addr, want := range map[string]bool{
		"10.0.0.1": true, "::ffff:10.0.0.1": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.8": false,
		"2001:db8:ffff::1": true, "2001:db8:ffff::1%eth0": true, "2001:db8:fffe::1": false, "::1": false,
		"127.0.0.1": false,
	} {
		if got := set.Trusts(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if (*proxies.Set)(nil).Trusts(netip.MustParseAddr("10.0.0.1")) || set.Trusts(netip.Addr{}) {
		t.Error("no set trusts an address, or a set trusts none")
	}
}

func TestNew_RefusesWhatCannotBeMeant(t *testing.T) {
	for _, c := range []proxies.Config{
		{Trusted: []string{"proxy.example.com"}}, {Trusted: []string{"10.0.0.0/33"}}, {Trusted: []string{""}},
		{Trusted: []string{"10.0.0.1-10.0.0.9"}},
		{Trusted: []string{"0.0.0.0/0"}}, {Trusted: []string{"10.0.0.0/8", "::/0"}},
		{Trusted: []string{"::ffff:0.0.0.0/96"}},
		{Trusted: trusted, Header: "x-real-ip"}, {Trusted: make([]string, 1025)},
	} {
		_, err := proxies.New(c)
		var field *config.FieldError
		if !errors.As(err, &field) {
			t.Errorf("%v: %v, want the setting", c, err)
		}
	}
	if set, err := proxies.New(proxies.Config{Header: "X-Forwarded-For"}); set != nil || err != nil {
		t.Errorf("no proxies: %v, %v", set, err)
	}
	if set, err := proxies.New(proxies.Config{Trusted: []string{"::ffff:10.0.0.0/104", "10.1.2.3/8"}}); err != nil ||
		!set.Trusts(netip.MustParseAddr("10.9.9.9")) {
		t.Errorf("IPv4 in IPv6: %v, %v", set, err)
	}
}

func FuzzOrigin(f *testing.F) {
	for _, text := range []string{
		"203.0.113.9", `for="[2001:db8::1]:80";proto=https, for=10.0.0.2`, "\",\\\"", "unknown, _x", "[::1%eth0]:1",
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, hostile string, forwarded bool) {
		name, header, entry := "X-Forwarded-For", proxies.HeaderXForwardedFor, "203.0.113.9"
		if forwarded {
			name, header, entry = "Forwarded", proxies.HeaderForwarded, `for="203.0.113.9:1"`
		}
		set := open(t, header)
		if got, _ := originOf(set, http.Header{name: {hostile}}); !netip.MustParseAddr(got).IsValid() ||
			strings.Contains(got, "%") {
			t.Errorf("%q is from %s", hostile, got)
		}
		// For any header that a client sends, the address that a trusted proxy has added is the client's.
		for _, lines := range [][]string{{hostile + ", " + entry}, {hostile, entry}} {
			if got, _ := originOf(set, http.Header{name: lines}); got != "203.0.113.9" {
				t.Errorf("%q is from %s", lines, got)
			}
		}
	})
}
