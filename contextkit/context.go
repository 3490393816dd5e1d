package contextkit

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"time"
)

// Errors of a context whose metadata cannot be sent.
var (
	// ErrNoContext: the context carries no RequestContext.
	ErrNoContext = errors.New(
		"contextkit: the context carries no request context: enter through a contextkit interceptor or use " +
			"PlatformContext",
	)
	// ErrNoTenant: the RequestContext has neither a tenant nor the platform scope.
	ErrNoTenant = errors.New(
		"contextkit: the context names no tenant: set one, or use PlatformContext for calls that concern the platform",
	)
	// ErrNoTrace: the RequestContext has no trace.
	ErrNoTrace = errors.New("contextkit: the context carries no trace")
)

// RequestContext is the metadata of a call or message. The RequestContext in a context must not be changed; change a
// copy.
type RequestContext struct {
	// TenantID is the tenant; zero with Platform set for platform calls.
	TenantID TenantID
	// Platform reports that the call is for the platform and not for a tenant.
	Platform bool
	// plain reports that the metadata had no headers that the gateway forwards.
	plain bool
	// CorrelationID is shared by all calls, events and workflow steps that a client's call causes.
	CorrelationID string
	// Traceparent is the received traceparent (W3C Trace Context): its parent id is the caller's span.
	Traceparent Traceparent
	// SpanID is the span of this process, and the parent id of its outgoing calls. It equals Traceparent's
	// parent id if it is the first span of the trace.
	SpanID SpanID
	// Tracestate contains the vendors' members (W3C Trace Context §3.3), as [CombineTracestate] returns them.
	Tracestate string
	// TraceID is the trace id of Traceparent, or the one that was received without a traceparent.
	TraceID TraceID
	// RequestID identifies this call.
	RequestID string
	// CausationID is the id of the event or call that caused this call; "" at the edge.
	CausationID string
	// Depth is the number of workflows in the chain of causes: 0 for a client's call, and one more for each workflow
	// that sends a command. A depth that a client sends only shortens the chains that its calls start.
	Depth int

	// next is the cached traceparent of outgoing calls; "": not cached.
	next string
	made Traceparent

	began time.Time
}

// Began returns when the incoming call began; zero: there is none.
func (rc *RequestContext) Began() time.Time { return rc.began }

// MayForward reports whether the metadata from which the context was extracted may have headers that pass to nodes (see
// [PassesToNode]). It is false only if it is known to have none.
func (rc *RequestContext) MayForward() bool { return !rc.plain }

// NewContext returns a context that carries rc.
func NewContext(ctx context.Context, rc RequestContext) context.Context { return Carry(ctx, rc) }

// FromContext returns the request context that ctx carries, and whether there is one.
func FromContext(ctx context.Context) (RequestContext, bool) { return Carried[RequestContext](ctx) }

// In returns the request context that ctx carries, without a copy; nil: there is none. The caller must not change it.
func In(ctx context.Context) *RequestContext { return find[RequestContext](ctx) }

// PlatformContext returns a context for a call of the platform, such as a probe or a query of the fleet. It continues
// the trace and the correlation id of ctx, or starts new ones.
func PlatformContext(ctx context.Context) context.Context {
	rc, _ := FromContext(ctx)
	rc.TenantID = TenantID{}
	rc.Platform = true
	rc.complete()
	return NewContext(ctx, rc)
}

// TenantContext returns a context for work that the process itself does for a tenant, such as a workflow step or a
// rebuild. It continues the trace and the correlation id of ctx, or starts new ones.
func TenantContext(ctx context.Context, tenant TenantID) context.Context {
	rc, _ := FromContext(ctx)
	rc.TenantID = tenant
	rc.Platform = false
	rc.complete()
	return NewContext(ctx, rc)
}

// setTrace sets the fields of the trace: it starts a trace if none was received, and a span.
func (rc *RequestContext) setTrace() {
	if rc.Traceparent.IsZero() {
		rc.Traceparent = NewTraceparent()
		rc.SpanID = rc.Traceparent.ParentID
		if rc.TraceID != (TraceID{}) {
			rc.Traceparent.TraceID = rc.TraceID
		}
	}
	rc.TraceID = rc.Traceparent.TraceID // it takes precedence over an explicit trace id
	if rc.SpanID == (SpanID{}) {
		rc.SpanID = NewSpanID()
	}
	rc.made = rc.outgoingTraceparent()
}

// complete creates the ids that were not received.
func (rc *RequestContext) complete() {
	rc.setTrace()
	if rc.CorrelationID != "" && rc.RequestID != "" {
		rc.next = rc.made.String()
		return
	}
	// The traceparent and the created ids are substrings of one string, which is allocated once.
	var buffer [traceparentLength + 2*idLength]byte
	made, now := rc.made.append(buffer[:0]), rc.began
	if now.IsZero() {
		now = time.Now()
	}
	ids := [...]*string{&rc.CorrelationID, &rc.RequestID}
	for _, id := range ids {
		if *id == "" {
			made = appendID(made, now)
		}
	}
	text := string(made)
	rc.next, text = text[:traceparentLength], text[traceparentLength:]
	for _, id := range ids {
		if *id == "" {
			*id, text = text[:idLength], text[idLength:]
		}
	}
}

// outgoingTraceparent returns the traceparent of outgoing calls.
func (rc *RequestContext) outgoingTraceparent() Traceparent {
	return Traceparent{TraceID: rc.Traceparent.TraceID, ParentID: rc.SpanID, Flags: rc.Traceparent.Flags}
}

// traceparent returns the text of the traceparent of outgoing calls.
func (rc *RequestContext) traceparent() string {
	if out := rc.outgoingTraceparent(); out != rc.made || rc.next == "" {
		return out.String()
	}
	return rc.next
}

// TraceIDText returns the text of TraceID, which is usually cached.
func (rc *RequestContext) TraceIDText() string {
	if rc.TraceID != rc.made.TraceID || rc.next == "" {
		return rc.TraceID.String()
	}
	return rc.next[traceIDAt:][:traceIDLength]
}

// outgoing returns the request context of an outgoing call, which the caller must not change, or an error if it is
// incomplete.
func outgoing(ctx context.Context) (*RequestContext, error) {
	rc := In(ctx)
	switch {
	case rc == nil:
		return nil, ErrNoContext
	case rc.TenantID.IsZero() && !rc.Platform:
		return nil, ErrNoTenant
	case rc.Traceparent.IsZero():
		return nil, ErrNoTrace
	case rc.SpanID == (SpanID{}):
		out := *rc
		out.SpanID = NewSpanID()
		return &out, nil
	}
	return rc, nil
}

// SpanContext returns a context for one of several operations of an incoming call. It has a new span, which is the
// parent of its outgoing calls. If ctx carries no request context, it returns ctx.
func SpanContext(ctx context.Context) context.Context {
	rc, ok := FromContext(ctx)
	if !ok {
		return ctx
	}
	rc.SpanID = NewSpanID()
	return NewContext(ctx, rc)
}

// idLength is the length of an id in characters.
const idLength = 36

// NewID returns a new UUIDv7 (RFC 9562 §5.7). Ids are ordered by time with a precision of a millisecond; the uuid
// package would order them within a millisecond too, but under a lock.
func NewID() string {
	var text [idLength]byte
	return string(appendID(text[:0], time.Now()))
}

// IsNewID reports whether s has the form of an id that [NewID] returns.
func IsNewID(s string) bool {
	if len(s) != idLength || s[14] != '7' || !strings.ContainsRune("89ab", rune(s[19])) {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

func appendID(to []byte, now time.Time) []byte {
	var id [16]byte
	// Ids must be unique, but not secret. The runtime's ChaCha8 takes a tenth of the time of crypto/rand, which matters
	// for several ids per call.
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16|rand.Uint64()&0x0fff|7<<12) // version 7
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()&^(3<<62)|2<<62)                           // variant 10
	var digits [32]byte
	hex.Encode(digits[:], id[:])
	to = append(append(to, digits[:8]...), '-')
	to = append(append(to, digits[8:12]...), '-')
	to = append(append(to, digits[12:16]...), '-')
	to = append(append(to, digits[16:20]...), '-')
	return append(to, digits[20:]...)
}
