package contextkit

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"time"

	"connectrpc.com/connect/v2"
)

// ErrDuplicateTenant is returned when the tenant was written more than once: a
// second value is how a proxy and its backend come to disagree.
var ErrDuplicateTenant = errors.New("the tenant is given more than once")

// Metadata is the common interface of HTTP headers, gRPC metadata and Connect's headers: named,
// multi-valued, case-insensitive.
type Metadata interface {
	Writer
	// Values returns all values under key.
	Values(key string) []string
}

// Writer is metadata that is only written.
type Writer interface {
	// Set replaces the values under key.
	Set(key, value string)
}

// The contract's names in net/http's canonical form: looking one up in this form allocates nothing.
var (
	canonicalTenantID      = textproto.CanonicalMIMEHeaderKey(HeaderTenantID)
	canonicalCorrelationID = textproto.CanonicalMIMEHeaderKey(HeaderCorrelationID)
	canonicalTraceparent   = textproto.CanonicalMIMEHeaderKey(HeaderTraceparent)
	canonicalTracestate    = textproto.CanonicalMIMEHeaderKey(HeaderTracestate)
	canonicalTraceID       = textproto.CanonicalMIMEHeaderKey(HeaderTraceID)
	canonicalRequestID     = textproto.CanonicalMIMEHeaderKey(HeaderRequestID)
	canonicalCausationID   = textproto.CanonicalMIMEHeaderKey(HeaderCausationID)
	canonicalDepth         = textproto.CanonicalMIMEHeaderKey(HeaderCausationDepth)
	canonicalPrincipal     = textproto.CanonicalMIMEHeaderKey(HeaderPrincipal)
	canonicalClient        = textproto.CanonicalMIMEHeaderKey(HeaderClient)
	canonicalRights        = textproto.CanonicalMIMEHeaderKey(HeaderRights)
	canonicalPlatform      = textproto.CanonicalMIMEHeaderKey(HeaderPlatform)
)

// Fields is metadata that keeps names in lower case, as HTTP/2 sends them: those of the
// contract need not be found then.
type Fields interface {
	// SetField sets the value of a field that is not there yet.
	SetField(name, value string)
}

// Extract reads the contract out of md, from an incoming call of HTTP, gRPC or
// Connect, and completes it: a missing or unusable correlation or
// request id is replaced, a bad traceparent starts a new trace. A tenant that
// is duplicated or malformed is an error (it wraps [ErrInvalidTenant] or is
// [ErrDuplicateTenant]); an absent one is not, the caller decides whether it
// needs one.
func Extract(md Metadata) (rc RequestContext, err error) {
	err = rc.extract(md)
	return rc, err
}

// extract is Extract into a zero rc.
func (rc *RequestContext) extract(md Metadata) (err error) {
	read := readContract(md)
	rc.plain = read.plain
	rc.began = time.Now()
	rc.CorrelationID = singleID(read.correlation)
	rc.RequestID = singleID(read.request)
	rc.CausationID = singleID(read.causation)
	rc.Depth = parseDepth(read.depth)
	rc.Traceparent, rc.Tracestate = extractTrace(read.traceparent, read.tracestate)
	if values := read.traceID; len(values) == 1 {
		rc.TraceID, _ = ParseTraceID(values[0])
	}
	rc.TenantID, err = extractTenant(read.tenant)
	rc.complete()
	return err
}

// contractValues are the contract's values in metadata.
type contractValues struct {
	tenant, correlation, request, causation, depth, traceparent, tracestate, traceID []string
	// there is nothing that the gateway forwards
	plain bool
}

// readContract reads metadata: Connect's headers in one pass, since most calls have few headers.
func readContract(md Metadata) (s contractValues) {
	if header, ok := md.(*connect.Header); ok {
		s.plain = true
		for key, values := range header.All() {
			if field := s.field(key); field != nil {
				*field = values
			} else if s.plain {
				s.plain = !PassesToNode(key)
			}
		}
		return s
	}
	for key := range contractHeaders {
		*s.field(key) = md.Values(key)
	}
	return s
}

// field returns where the values of a header of the contract go, nil for another. Its
// name is in canonical form.
func (s *contractValues) field(canonical string) *[]string {
	switch canonical {
	case canonicalTenantID:
		return &s.tenant
	case canonicalCorrelationID:
		return &s.correlation
	case canonicalRequestID:
		return &s.request
	case canonicalCausationID:
		return &s.causation
	case canonicalDepth:
		return &s.depth
	case canonicalTraceparent:
		return &s.traceparent
	case canonicalTracestate:
		return &s.tracestate
	case canonicalTraceID:
		return &s.traceID
	}
	return nil
}

// Inject writes the contract into md for an outgoing call. It returns an error if ctx must not leave the
// process. The trace id is in traceparent only: HTTP/2 would index a further header with a new value in
// every call.
func Inject(ctx context.Context, md Writer) error {
	rc, err := outgoing(ctx)
	if err != nil {
		return err
	}
	w := newWriter(md, 6+min(max(rc.Depth, 0), 1))
	w.set(canonicalTenantID, HeaderTenantID, rc.TenantID.String())
	w.set(canonicalTraceparent, HeaderTraceparent, rc.traceparent())
	w.set(canonicalTracestate, HeaderTracestate, rc.Tracestate)
	w.set(canonicalCausationID, HeaderCausationID, rc.CausationID)
	w.set(canonicalDepth, HeaderCausationDepth, formatDepth(rc.Depth))
	w.set(canonicalCorrelationID, HeaderCorrelationID, rc.CorrelationID)
	w.set(canonicalRequestID, HeaderRequestID, rc.RequestID)
	return nil
}

// InjectResponse writes the ids that a caller needs to ask about its call.
func InjectResponse(rc *RequestContext, md Writer) {
	w := newWriter(md, 3)
	w.set(canonicalCorrelationID, HeaderCorrelationID, rc.CorrelationID)
	w.set(canonicalTraceID, HeaderTraceID, rc.TraceIDText())
	w.set(canonicalRequestID, HeaderRequestID, rc.RequestID)
}

// writer sets single values. They share one array where the metadata allows that, since every
// outgoing call writes them.
type writer struct {
	md     Writer
	fields Fields
	shared sharer
	values []string
}

// sharer is metadata that retains the slice passed to it, as Connect's headers do.
type sharer interface {
	SetValues(key string, values []string)
}

// newWriter returns a writer of at most n values.
func newWriter(md Writer, most int) *writer {
	switch md := md.(type) {
	case Fields:
		return &writer{fields: md}
	case sharer:
		return &writer{shared: md, values: make([]string, 0, most)}
	}
	return &writer{md: md}
}

// set sets what is called canonical, or name in lower case, to value, unless there is none.
func (w *writer) set(canonical, name, value string) {
	switch {
	case value == "":
	case w.fields != nil:
		w.fields.SetField(name, value)
	case w.shared != nil:
		w.values = append(w.values, value)
		n := len(w.values)
		w.shared.SetValues(canonical, w.values[n-1:n:n])
	default:
		w.md.Set(canonical, value)
	}
}

func extractTenant(values []string) (TenantID, error) {
	switch len(values) {
	case 0:
		return TenantID{}, nil
	case 1:
		tenant, err := ParseTenantID(values[0])
		if err != nil {
			return TenantID{}, fmt.Errorf("%s: %w", HeaderTenantID, err)
		}
		return tenant, nil
	}
	return TenantID{}, fmt.Errorf("%s: %w", HeaderTenantID, ErrDuplicateTenant)
}

// singleID returns the one usable value, or "" so that it is replaced.
func singleID(values []string) string {
	if len(values) != 1 || !ValidID(values[0]) {
		return ""
	}
	return values[0]
}
