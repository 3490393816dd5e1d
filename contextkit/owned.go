package contextkit

import (
	"net/textproto"
	"slices"
	"strings"
)

// Source is the writer of a header in one direction of a call through the gateway.
type Source uint8

const (
	// FromSender passes the header on as its sender wrote it.
	FromSender Source = iota
	// FromGateway removes what the sender wrote. The gateway writes the header once, or not
	// at all.
	FromGateway
	// FromTransport is written by HTTP, gRPC or Connect for one connection, and never passed
	// on (RFC 9110 §7.6.1).
	FromTransport
	// FromNone ends at the gateway: what the sender wrote is removed, and nothing is written.
	FromNone
)

// OwnedHeader is a header that does not pass through the gateway as its sender wrote it, in
// one direction or in both. The rules hold for headers and trailers, for every case of the
// name, and for every number of values.
type OwnedHeader struct {
	// Name is in lower case. A final "*" stands for every name with that prefix.
	Name string
	// Meaning describes the value.
	Meaning string
	// Request is the writer of the header in calls to nodes, and Answer in answers to clients.
	Request, Answer Source
}

// ownedHeaders is the whole set: these headers are removed from the messages of clients and
// nodes, and every other header passes.
var ownedHeaders = []OwnedHeader{
	// The transport contract.
	{HeaderTenantID, "the tenant that the call is for; a client may name it", FromGateway, FromNone},
	{HeaderCorrelationID, "shared by all calls and events that one call causes", FromGateway, FromGateway},
	{HeaderRequestID, "names this one call", FromGateway, FromGateway},
	{HeaderCausationID, "names the event or call that caused this one", FromGateway, FromNone},
	{HeaderCausationDepth, "the number of workflows in the chain of causes", FromGateway, FromNone},
	{HeaderTraceparent, "the position in the trace (W3C Trace Context §3.2)", FromGateway, FromNone},
	{HeaderTracestate, "the vendors' positions in the trace (W3C Trace Context §3.3)", FromGateway, FromNone},
	{HeaderTraceID, "the trace, for clients without traceparent", FromNone, FromGateway},
	{"traceresponse", "the trace of a node that restarted it", FromNone, FromNone},
	{HeaderPrincipal, "the subject that called, encoded by EncodeText", FromGateway, FromNone},
	{HeaderPlatform, "1: the caller is the platform itself", FromGateway, FromNone},
	{HeaderRights, "the rights of the caller that the node checks", FromGateway, FromNone},
	{
		HeaderClient, "the address of the client, as the gateway or a trusted proxy before it sees it", FromGateway,
		FromNone,
	},
	{HeaderExplain, "asks the gateway for its decision", FromNone, FromNone},
	{HeaderDecision, "the gateway's decision, JSON in ASCII", FromNone, FromGateway},
	{ReservedPrefix + "*", "reserved for the gateway", FromNone, FromNone},

	// Credentials, and what a browser stores for the origin that all tenants share.
	{"authorization", "the client's credential", FromNone, FromNone},
	{"proxy-authorization", "a credential for a proxy", FromNone, FromNone},
	{"proxy-authenticate", "how to authenticate to a proxy", FromTransport, FromTransport},
	{"proxy-authentication-info", "the end of an authentication to a proxy", FromTransport, FromTransport},
	{"www-authenticate", "how to authenticate to the gateway", FromNone, FromGateway},
	{"authentication-info", "the end of an authentication", FromNone, FromNone},
	{"cookie", "the origin's cookies", FromNone, FromNone},
	{"set-cookie", "a cookie for the origin; the gateway has no sessions", FromNone, FromNone},
	{"set-cookie2", "as set-cookie (RFC 2965)", FromNone, FromNone},

	// The client's address and page.
	{"forwarded", "the addresses that the request has passed (RFC 7239)", FromNone, FromNone},
	{"x-forwarded-*", "as forwarded", FromNone, FromNone},
	{"x-real-ip", "the client's address", FromNone, FromNone},
	{"true-client-ip", "as x-real-ip, of Akamai and Cloudflare", FromNone, FromNone},
	{"cf-connecting-*", "as x-real-ip, of Cloudflare", FromNone, FromNone},
	{"fastly-client-ip", "as x-real-ip, of Fastly", FromNone, FromNone},
	{"fly-client-ip", "as x-real-ip, of Fly.io", FromNone, FromNone},
	{"x-client-ip", "as x-real-ip", FromNone, FromNone},
	{"x-cluster-client-ip", "as x-real-ip", FromNone, FromNone},
	{"x-envoy-external-address", "as x-real-ip, of Envoy", FromNone, FromNone},
	{"x-original-forwarded-for", "as x-forwarded-for, of ingress-nginx", FromNone, FromNone},
	{"via", "the proxies on the way", FromNone, FromNone},
	{"origin", "the page's origin", FromNone, FromNone},
	{"referer", "the page", FromNone, FromNone},
	{"access-control-*", "what pages of other origins may do (Fetch standard)", FromNone, FromGateway},

	// Ranges, conditions, caching and software of the edge's own answers.
	{"range", "a part of an answer", FromNone, FromNone},
	{"accept-ranges", "whether parts can be requested", FromNone, FromNone},
	{"content-range", "which part a body is", FromNone, FromNone},
	{"if-*", "conditions on an answer", FromNone, FromNone},
	{"server", "the software that answers", FromNone, FromGateway},
	{"x-powered-by", "as server", FromNone, FromNone},
	{"cdn-cache-control", "rules for shared caches alone (RFC 9213)", FromNone, FromNone},
	{"surrogate-*", "rules for shared caches alone", FromNone, FromNone},
	{"x-accel-*", "orders to a proxy before the gateway", FromNone, FromGateway},
	{"x-sendfile", "an order to a proxy before the gateway", FromNone, FromNone},

	// What a browser applies to the whole origin, or to the page that shows an answer.
	{"strict-transport-security", "the origin is called by TLS alone", FromNone, FromGateway},
	{"alt-svc", "other addresses of the origin", FromNone, FromGateway},
	{"clear-site-data", "data of the origin to be deleted", FromNone, FromGateway},
	{"content-security-policy", "what a page may load", FromNone, FromGateway},
	{"content-security-policy-report-only", "as content-security-policy", FromNone, FromGateway},
	{"cross-origin-*", "which origins may embed an answer", FromNone, FromGateway},
	{"expect-ct", "certificate transparency", FromNone, FromGateway},
	{"nel", "where network errors are reported", FromNone, FromGateway},
	{"origin-agent-cluster", "how pages of the origin are isolated", FromNone, FromGateway},
	{"permissions-policy", "what a page may use", FromNone, FromGateway},
	{"public-key-pins*", "which keys the origin has", FromNone, FromGateway},
	{"referrer-policy", "what a page tells of itself", FromNone, FromGateway},
	{"refresh", "another page to load", FromNone, FromGateway},
	{"report-to", "where reports go", FromNone, FromGateway},
	{"reporting-endpoints", "where reports go", FromNone, FromGateway},
	{"service-worker-allowed", "what a service worker may control", FromNone, FromGateway},
	{"sourcemap", "where sources are loaded from", FromNone, FromGateway},
	{"x-sourcemap", "as sourcemap", FromNone, FromGateway},
	{"timing-allow-origin", "who may read timings", FromNone, FromGateway},
	{"x-content-type-options", "whether the type is guessed", FromNone, FromGateway},
	{"x-frame-options", "who may frame an answer", FromNone, FromGateway},

	// Headers of one connection (RFC 9110 §7.6.1), and of the form of one message on it.
	{"connection", "headers of this connection alone", FromTransport, FromTransport},
	{"keep-alive", "how long the connection stays", FromTransport, FromTransport},
	{"proxy-connection", "as connection", FromTransport, FromTransport},
	{"te", "which transfer codings are taken", FromTransport, FromTransport},
	{"trailer", "which trailers follow", FromTransport, FromTransport},
	{"transfer-encoding", "how the body is sent", FromTransport, FromTransport},
	{"upgrade", "another protocol", FromTransport, FromTransport},
	{"http2-settings", "as upgrade", FromTransport, FromTransport},
	{"expect", "whether to wait before the body", FromTransport, FromTransport},
	{"host", "the server that the client meant", FromTransport, FromTransport},
	{"date", "when the message was made", FromTransport, FromTransport},
	{"user-agent", "the software that calls", FromTransport, FromTransport},
	{"accept", "which forms of an answer are taken", FromTransport, FromTransport},
	{"accept-encoding", "which encodings of an answer are taken", FromTransport, FromTransport},
	{"content-type", "the form of the body", FromTransport, FromTransport},
	{"content-length", "the size of the body", FromTransport, FromTransport},
	{"content-encoding", "the encoding of the body", FromTransport, FromTransport},
	{"grpc-*", "gRPC's own", FromTransport, FromTransport},
	{"connect-*", "Connect's own", FromTransport, FromTransport},
	{"trailer-*", "trailers of a Connect answer, sent as headers", FromTransport, FromTransport},
}

// OwnedHeaders returns the set of headers that do not pass through the gateway as their
// sender wrote them.
func OwnedHeaders() []OwnedHeader { return slices.Clone(ownedHeaders) }

// PassesToNode reports whether a header of a client's request, its name in canonical form, is
// forwarded to nodes. An underscore counts as a hyphen: servers that hand headers over as variables
// (CGI, WSGI) do not distinguish them.
func PassesToNode(canonical string) bool { return ruleOf(canonical).request == FromSender }

// PassesToClient reports whether a header or trailer of a node's answer, its name in
// canonical form, is forwarded to clients. An underscore counts as a hyphen.
func PassesToClient(canonical string) bool { return ruleOf(canonical).answer == FromSender }

// IsTransport reports whether a header, its name in canonical form, belongs to a transport,
// which writes it by itself.
func IsTransport(canonical string) bool { return ruleOf(canonical).request == FromTransport }

// rule is the writer of a header in both directions; the zero value: it passes unchanged.
type rule struct{ request, answer Source }

func ruleOf(canonical string) rule {
	if strings.IndexByte(canonical, '_') >= 0 {
		canonical = textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(canonical, "_", "-"))
	}
	if owned, ok := ownedNames[canonical]; ok {
		return owned
	}
	if canonical == "" {
		return rule{}
	}
	for _, owned := range ownedPrefixes[canonical[0]] {
		if strings.HasPrefix(canonical, owned.prefix) {
			return owned.rule
		}
	}
	return rule{}
}

// prefixRule is the rule of all names with a prefix.
type prefixRule struct {
	prefix string
	rule   rule
}

// The set in canonical form, since that is how net/http and Connect store names: single
// names, and prefixes by their first letter.
var ownedNames, ownedPrefixes = func() (names map[string]rule, prefixes [256][]prefixRule) {
	names = map[string]rule{}
	for _, owned := range ownedHeaders {
		prefix, isPrefix := strings.CutSuffix(owned.Name, "*")
		canonical, rule := textproto.CanonicalMIMEHeaderKey(prefix), rule{owned.Request, owned.Answer}
		if isPrefix {
			prefixes[canonical[0]] = append(prefixes[canonical[0]], prefixRule{canonical, rule})
		} else {
			names[canonical] = rule
		}
	}
	return names, prefixes
}()
