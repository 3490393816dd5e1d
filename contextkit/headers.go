package contextkit

import (
	"maps"
	"net/textproto"
	"slices"
)

// Names of the contract in HTTP headers and gRPC metadata.
const (
	HeaderTenantID      = "x-tenant-id"
	HeaderCorrelationID = "x-correlation-id"
	HeaderTraceparent   = "traceparent"
	HeaderTracestate    = "tracestate"
	HeaderTraceID       = "trace-id"
	HeaderRequestID     = "x-request-id"
	HeaderCausationID   = "x-causation-id"
	// HeaderCausationDepth is the number of workflows in the chain of causes, 1 to [MaxDepth].
	HeaderCausationDepth = "x-causation-depth"
)

// Names of headers that only the gateway writes or reads. [OwnedHeaders] has the whole set of
// headers that do not pass through it.
const (
	// HeaderPrincipal is the subject of the gateway's caller, encoded by [EncodeText], in
	// calls to nodes. [Principal] reads it.
	HeaderPrincipal = ReservedPrefix + "principal"
	// HeaderPlatform is "1" in calls to nodes whose caller is the platform itself, such as the
	// runner; calls of other callers do not have it. [FromPlatform] reads it.
	HeaderPlatform = ReservedPrefix + "platform"
	// HeaderRights has, in calls to nodes, those rights of the caller that the method's policy
	// lists as the node's to check (node_rights). [RightsOf] reads it.
	HeaderRights = ReservedPrefix + "rights"
	// HeaderClient is the address of the gateway's client in calls to nodes, IPv4 or IPv6 without
	// port, brackets and zone. [Client] reads it.
	HeaderClient = ReservedPrefix + "client"
	// HeaderChanges has, in the answer of a node to a call whose method is audited, what the call has changed: a JSON
	// array of objects with the name (n), the value before (a) and the value after (b), in ASCII. It is in the audit
	// record, and not sent to the client.
	HeaderChanges = ReservedPrefix + "changes"
	// HeaderExplain asks the gateway for its decision on a call.
	HeaderExplain = ReservedPrefix + "explain"
	// HeaderDecision is the answer to HeaderExplain: a JSON object, in ASCII.
	HeaderDecision = ReservedPrefix + "decision"
	// ReservedPrefix begins every name that is reserved for the gateway: neither clients nor
	// nodes can send such a header through it.
	ReservedPrefix = "x-headgate-"
)

// Names of the contract in NATS message headers. NATS compares header names by
// their exact case.
const (
	NATSTenantID           = "tenant-id"
	NATSCorrelationID      = "x-correlation-id"
	natsCorrelationIDFirst = "correlation-id" // the first name of the correlation id; both are written, either is read
	NATSTraceparent        = "traceparent"
	NATSTracestate         = "tracestate"
	NATSTraceID            = "trace-id"
	NATSRequestID          = "x-request-id"
	NATSCausationID        = "causation-id"
	NATSCausationDepth     = "causation-depth"
)

// MaxIDLength bounds every identifier but the tenant's, which is bounded by the
// DNS label's 63. 128 holds a UUID, a ULID or a trace id with a prefix.
const MaxIDLength = 128

// ValidID reports whether s may travel as an identifier: an RFC 9110 token, so
// that no value can break out of a header, a log line or a subject.
func ValidID(s string) bool {
	if s == "" || len(s) > MaxIDLength {
		return false
	}
	for i := range len(s) {
		if !tokenChar[s[i]] {
			return false
		}
	}
	return true
}

// tokenChar is RFC 9110 §5.6.2's tchar, without '*', which NATS reads as a
// wildcard where an id becomes a subject token.
var tokenChar = func() (table [256]bool) {
	for c := '0'; c <= '9'; c++ {
		table[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		table[c] = true
		table[c-'a'+'A'] = true
	}
	for _, c := range "!#$%&'+-.^_`|~:" {
		table[c] = true
	}
	return table
}()

// IsContract reports whether a header, in canonical form, is one of the
// contract's: a proxy writes those itself and never passes one on.
func IsContract(canonical string) bool { return contractHeaders[canonical] }

var contractHeaders = func() map[string]bool {
	set := map[string]bool{}
	for _, name := range []string{
		HeaderTenantID, HeaderCorrelationID, HeaderTraceparent, HeaderTracestate, HeaderTraceID, HeaderRequestID,
		HeaderCausationID, HeaderCausationDepth,
	} {
		set[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return set
}()

// Headers returns the contract's header names, in canonical form.
func Headers() []string { return slices.Sorted(maps.Keys(contractHeaders)) }
