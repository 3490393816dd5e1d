package contextkit_test

import (
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
)

func TestOwnedHeaders_EachRowIsInForceForEveryFormOfItsName(t *testing.T) {
	seen := map[string]bool{}
	for _, owned := range contextkit.OwnedHeaders() {
		if owned.Name != strings.ToLower(owned.Name) || owned.Meaning == "" || seen[owned.Name] {
			t.Errorf("%+v: want one row in lower case, with a meaning", owned)
		}
		seen[owned.Name] = true
		name := strings.Replace(owned.Name, "*", "any", 1)
		for _, form := range []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")} {
			canonical := textproto.CanonicalMIMEHeaderKey(form)
			if contextkit.PassesToNode(canonical) != (owned.Request == contextkit.FromSender) ||
				contextkit.PassesToClient(canonical) != (owned.Answer == contextkit.FromSender) {
				t.Errorf("%s: the rule is not in force for %s", owned.Name, canonical)
			}
			if contextkit.IsTransport(canonical) != (owned.Request == contextkit.FromTransport) {
				t.Errorf("%s: is %s a transport's? %v", owned.Name, canonical, contextkit.IsTransport(canonical))
			}
		}
	}
	for _, name := range contextkit.Headers() {
		if contextkit.PassesToNode(name) || contextkit.PassesToClient(name) {
			t.Errorf("the contract's %s passes", name)
		}
	}
	for _, name := range []string{"X-Custom", "X-Custom-Bin", "Cache-Control", "Etag", "X-Headgat", "Accept-Language"} {
		if !contextkit.PassesToNode(name) || !contextkit.PassesToClient(name) {
			t.Errorf("%s does not pass", name)
		}
	}
}

// What nodes and clients trust is named here once more: a row that is lost, or that passes a
// header, is found by this test and not by the tests that read the set.
func TestOwnedHeaders_ContainEveryTrustedHeader(t *testing.T) {
	for _, name := range []string{
		"X-Tenant-Id", "X-Correlation-Id", "X-Request-Id", "X-Causation-Id", "Traceparent", "Tracestate", "Trace-Id",
		"X-Headgate-Principal", "X-Headgate-Client", "X-Headgate-Platform", "X-Headgate-Explain", "X-Headgate-Decision",
		"X-Headgate-Any",
		"Authorization", "Cookie", "Set-Cookie", "Www-Authenticate", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Real-Ip",
		"True-Client-Ip", "Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Fastly-Client-Ip", "Fly-Client-Ip", "X-Client-Ip",
		"X-Cluster-Client-Ip",
		"X-Envoy-External-Address", "X-Original-Forwarded-For",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Origin", "Server", "Connection", "Te",
		"Grpc-Status", "Grpc-Timeout",
		"Connect-Timeout-Ms", "Content-Type", "Content-Length", "Transfer-Encoding", "Host",
	} {
		if contextkit.PassesToNode(name) {
			t.Errorf("%s of a client passes to nodes", name)
		}
		if contextkit.PassesToClient(name) {
			t.Errorf("%s of a node passes to clients", name)
		}
	}
}

func TestOwnedHeaders_LookingANameUpAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		_ = contextkit.PassesToNode("X-Custom")
		_ = contextkit.PassesToClient("X-Headgate-Anything")
	}); n != 0 {
		t.Errorf("%v objects", n)
	}
}

func TestEncodeText_ExactForms(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "app": "app", "key:ops": "key:ops", "auth0|5f7c+x@example.com": "auth0|5f7c+x@example.com",
		"Ada Lovelace": "Ada Lovelace",
		"100%":         "100%25", "%41": "%2541", "Zoë": "Zo%C3%AB", "josé": "jos%C3%A9", "名前": "%E5%90%8D%E5%89%8D",
		"🦊":       "%F0%9F%A6%8A",
		" outer ": "%20outer%20", " ": "%20", "a\r\nb\x00\t\x7f": "a%0D%0Ab%00%09%7F", "\xff": "%FF",
	} {
		if got := contextkit.EncodeText(text); got != want || contextkit.DecodeText(got) != text {
			t.Errorf("%q is encoded as %q and decoded as %q, want %q", text, got, contextkit.DecodeText(got), want)
		}
	}
}

func TestClient_IsOneAddress(t *testing.T) {
	for want, values := range map[string][]string{
		"203.0.113.9": {"203.0.113.9"}, "2001:db8::9": {"2001:db8::9"}, "invalid IP": {"203.0.113.9", "203.0.113.9"},
	} {
		if got := contextkit.Client(
			metadata{http.Header{http.CanonicalHeaderKey(contextkit.HeaderClient): values}},
		); got.String() != want {
			t.Errorf("%q is %s, want %s", values, got, want)
		}
	}
	if contextkit.Client(metadata{http.Header{}}).IsValid() ||
		contextkit.Client(
			metadata{http.Header{http.CanonicalHeaderKey(contextkit.HeaderClient): {"unknown"}}},
		).IsValid() {
		t.Error("no address")
	}
}

func TestDecodeText_MalformedEscapesAreUnchanged(t *testing.T) {
	for value, want := range map[string]string{
		"%": "%", "%4": "%4", "%zz": "%zz", "100%": "100%", "%c3%ab": "ë", "%%41": "%A",
	} {
		if got := contextkit.DecodeText(value); got != want {
			t.Errorf("%q is decoded as %q, want %q", value, got, want)
		}
	}
}

func TestEncodeText_AnyTextComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkText(
			t,
			rapid.OneOf(rapid.String(),
				rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text"),
		)
	})
}

func FuzzEncodeText(f *testing.F) {
	for _, text := range []string{"app", "Zoë", " %41 ", "\x00\xff", "🦊%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkText(t, text) })
}

// checkText checks that a text travels in any header and comes back.
func checkText(t interface{ Fatalf(string, ...any) }, text string) {
	value := contextkit.EncodeText(text)
	if got := contextkit.DecodeText(value); got != text {
		t.Fatalf("%q comes back as %q", text, got)
	}
	if value != textproto.TrimString(value) ||
		strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == utf8.RuneError }) {
		t.Fatalf("%q is sent as %q, which a header cannot carry", text, value)
	}
	md := metadata{http.Header{}}
	md.Set(contextkit.HeaderPrincipal, value)
	if got := contextkit.Principal(md); got != text {
		t.Fatalf("the principal %q is read as %q", text, got)
	}
}

func TestPrincipal_IsReadOnlyIfThereIsOne(t *testing.T) {
	md := metadata{http.Header{}}
	if got := contextkit.Principal(md); got != "" {
		t.Errorf("without the header: %q", got)
	}
	md.Add(contextkit.HeaderPrincipal, "root")
	md.Add(contextkit.HeaderPrincipal, "app")
	if got := contextkit.Principal(md); got != "" {
		t.Errorf("of two: %q", got)
	}
}

func TestMayForward_IsFalseOnlyWithoutAHeaderThatPasses(t *testing.T) {
	for name, row := range map[string]struct {
		headers []string
		want    bool
	}{
		"none": {nil, false},
		"the contract and owned": {
			[]string{contextkit.HeaderTenantID, "Authorization", "User-Agent", "Accept", contextkit.HeaderPrincipal},
			false,
		},
		"forwarded header": {[]string{"X-Anything"}, true},
		"forwarded header and all values": {
			[]string{contextkit.HeaderTenantID, "Authorization", "X-Anything", "Accept"}, true,
		},
	} {
		header := &connect.Header{}
		for _, key := range row.headers {
			header.Set(key, "acme")
		}
		rc, err := contextkit.Extract(header)
		if err != nil || rc.MayForward() != row.want {
			t.Errorf("%s: %t, want %t; %v", name, rc.MayForward(), row.want, err)
		}
	}
	if rc, err := contextkit.Extract(metadata{http.Header{}}); err != nil || !rc.MayForward() {
		t.Errorf("metadata of another kind: its headers are not known: %v", err)
	}
}
