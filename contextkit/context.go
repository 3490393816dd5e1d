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

// Errors of a context that must not leave the process.
var (
	// ErrNoContext: no RequestContext was put into the context at all.
	ErrNoContext = errors.New(
		"contextkit: the context carries no request context: enter through a contextkit interceptor or use " +
			"PlatformContext",
	)
	// ErrNoTenant: neither a tenant nor the explicit platform scope.
	ErrNoTenant = errors.New(
		"contextkit: the context names no tenant: set one, or use PlatformContext for calls that concern the platform",
	)
	// ErrNoTrace: no trace to continue.
	ErrNoTrace = errors.New("contextkit: the context carries no trace")
)

// RequestContext is the metadata of every call and message. It is a value: change a copy, never the one
// in a context.
type RequestContext struct {
	// TenantID is the tenant; zero with Platform set for platform calls.
	TenantID TenantID
	// Platform is true if the call explicitly concerns no tenant.
	Platform bool
	// plain reports that the metadata had nothing that the gateway forwards.
	plain bool
	// CorrelationID is shared by everything that one edge call causes.
	CorrelationID string
	// Traceparent is the position in the trace that was received: its parent id is the caller's span.
	Traceparent Traceparent
	// SpanID is the span of this process, and the parent id of its outgoing calls. It equals Traceparent's
	// parent id if it is the first span of the trace.
	SpanID SpanID
	// Tracestate has the vendors' members as [CombineTracestate] returns them.
	Tracestate string
	// TraceID is Traceparent's, or was given explicitly without a traceparent.
	TraceID TraceID
	// RequestID names this one call.
	RequestID string
	// CausationID names the event or call that caused this one; "" at the edge.
	CausationID string
	// Depth is the number of workflows in the chain of causes: 0 for what a client asks for, and one
	// more with each workflow whose command this is. A client that sends a depth shortens the
	// chains that its own calls start.
	Depth int

	// next is the text of the traceparent of outgoing calls, if it is cached.
	next string
	made Traceparent

	began time.Time
}

// Began returns when the incoming call began; zero without one.
func (rc *RequestContext) Began() time.Time { return rc.began }

// MayForward reports whether the metadata that the context was extracted from may have headers
// that pass to nodes (see [PassesToNode]). It is true unless they are known to be none.
func (rc *RequestContext) MayForward() bool { return !rc.plain }

// NewContext returns ctx carrying rc.
func NewContext(ctx context.Context, rc RequestContext) context.Context { return Carry(ctx, rc) }

// FromContext returns the request context in ctx, if there is one.
func FromContext(ctx context.Context) (RequestContext, bool) { return Carried[RequestContext](ctx) }

// In is [FromContext] without a copy; nil if there is none. The result must not be changed.
func In(ctx context.Context) *RequestContext { return find[RequestContext](ctx) }

// PlatformContext returns ctx for a call that concerns the platform and not a
// tenant: a probe, a fleet snapshot, start-up work. It continues the trace and
// correlation in ctx, or starts new ones.
func PlatformContext(ctx context.Context) context.Context {
	rc, _ := FromContext(ctx)
	rc.TenantID = TenantID{}
	rc.Platform = true
	rc.complete()
	return NewContext(ctx, rc)
}

// TenantContext returns ctx for work that the process itself does for a tenant
// (a workflow step, a rebuild). It continues the trace and correlation in ctx,
// or starts new ones.
func TenantContext(ctx context.Context, tenant TenantID) context.Context {
	rc, _ := FromContext(ctx)
	rc.TenantID = tenant
	rc.Platform = false
	rc.complete()
	return NewContext(ctx, rc)
}

// place fills in the position in a trace.
func (rc *RequestContext) place() {
	if rc.Traceparent.IsZero() {
		rc.Traceparent = NewTraceparent()
		rc.SpanID = rc.Traceparent.ParentID
		if rc.TraceID != (TraceID{}) {
			rc.Traceparent.TraceID = rc.TraceID
		}
	}
	rc.TraceID = rc.Traceparent.TraceID // traceparent wins over an explicit trace-id
	if rc.SpanID == (SpanID{}) {
		rc.SpanID = NewSpanID()
	}
	rc.made = rc.asking()
}

// complete creates the ids that were not received.
func (rc *RequestContext) complete() {
	rc.place()
	if rc.CorrelationID != "" && rc.RequestID != "" {
		rc.next = rc.made.String()
		return
	}
	// All created ids are parts of one string.
	var room [traceparentLength + 2*idLength]byte
	made, now := rc.made.append(room[:0]), rc.began
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

// asking is the position in the trace of outgoing calls.
func (rc *RequestContext) asking() Traceparent {
	return Traceparent{TraceID: rc.Traceparent.TraceID, ParentID: rc.SpanID, Flags: rc.Traceparent.Flags}
}

// traceparent returns the value for outgoing calls.
func (rc *RequestContext) traceparent() string {
	if asking := rc.asking(); asking != rc.made || rc.next == "" {
		return asking.String()
	}
	return rc.next
}

// TraceIDText returns TraceID's text, which is usually cached.
func (rc *RequestContext) TraceIDText() string {
	if rc.TraceID != rc.made.TraceID || rc.next == "" {
		return rc.TraceID.String()
	}
	return rc.next[traceIDAt:][:traceIDLength]
}

// outgoing returns the request context of an outgoing call, which must not be changed, or an error if ctx
// must not leave the process.
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
		asking := *rc
		asking.SpanID = NewSpanID()
		return &asking, nil
	}
	return rc, nil
}

// SpanContext returns ctx for one of several operations of an incoming call: it has a new span, and
// calls under it are children of that span. Without a request context it returns ctx.
func SpanContext(ctx context.Context) context.Context {
	rc, ok := FromContext(ctx)
	if !ok {
		return ctx
	}
	rc.SpanID = NewSpanID()
	return NewContext(ctx, rc)
}

// idLength is that of an id, in characters.
const idLength = 36

// NewID returns a new identifier: a UUIDv7 (RFC 9562 §5.7), so that ids sort by time,
// to the millisecond. The uuid package's own would take a lock for the order within it.
func NewID() string {
	var text [idLength]byte
	return string(appendID(text[:0], time.Now()))
}

// IsNewID reports whether s has the form of what [NewID] returns.
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
	// No id is a secret, they only differ: the runtime's own ChaCha8 takes a tenth of the
	// time of crypto/rand, and there are several ids a call.
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
