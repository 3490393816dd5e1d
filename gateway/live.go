package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
)

// liveStreams is the set of open streams. A stream ends when the credential that admitted it
// expires or is revoked, and when its tenant is suspended.
type liveStreams struct {
	mu       sync.Mutex
	streams  map[*liveStream]struct{}
	ticketed map[string]*liveStream // by ticket id: each ticket has one stream
}

// liveStream is an open stream.
type liveStream struct {
	tenant    contextkit.TenantID
	principal *auth.Principal
	ticket    string // the id of the ticket that opened the stream; "": none
	end       context.CancelCauseFunc
}

func (l *liveStreams) add(stream *liveStream) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams == nil {
		l.streams, l.ticketed = map[*liveStream]struct{}{}, map[string]*liveStream{}
	}
	l.streams[stream] = struct{}{}
	if stream.ticket != "" {
		if before := l.ticketed[stream.ticket]; before != nil { // its client reconnects
			before.end(errSuperseded)
		}
		l.ticketed[stream.ticket] = stream
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.streams, stream)
		if l.ticketed[stream.ticket] == stream {
			delete(l.ticketed, stream.ticket)
		}
	}
}

// all returns the open streams.
func (l *liveStreams) all() []*liveStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*liveStream, 0, len(l.streams))
	for stream := range l.streams {
		out = append(out, stream)
	}
	return out
}

// suspendedError is the cause that ends a suspended tenant's streams, with the text for the caller.
type suspendedError struct{ reason string }

func (e *suspendedError) Error() string { return e.reason }

// liveContext returns a context for a stream that ends when the stream's credential or tenant is no
// longer valid; [Call.endCause] returns the cause. The caller must call release when the stream has
// ended.
func (g *Gateway) liveContext(ctx context.Context, call *Call) (_ context.Context, release func()) {
	ctx, end := context.WithCancelCause(ctx)
	rc, _ := contextkit.FromContext(ctx)
	stream := &liveStream{tenant: rc.TenantID, principal: call.Principal, end: end}
	if ticket := edge.TicketOf(call.Stream); ticket != nil {
		stream.ticket = ticket.ID
	}
	leave := g.live.add(stream)
	g.endSuspended(stream) // in case the tenant was suspended after its stage
	g.endRevoked(stream)
	expires := func() {}
	if until := call.Principal.Until; !until.IsZero() {
		expires = atTime(until, time.Now, func() { end(call.Principal.ErrEnded()) })
	}
	return ctx, func() {
		expires()
		leave()
		end(nil)
	}
}

// clockCheck is the interval at which a wait reads the wall clock again, since the clock may have been set.
const clockCheck = 30 * time.Second

// atTime calls do once the clock, which may be set at any time, shows a time, or up to clockCheck later. The returned
// function ends the wait; do may be running then.
func atTime(at time.Time, clock func() time.Time, do func()) (stop func()) {
	var (
		mu      sync.Mutex
		timer   *time.Timer
		stopped bool
	)
	check := func() {
		mu.Lock()
		defer mu.Unlock()
		left := at.Sub(clock().Round(0)) // by the wall clock
		switch {
		case stopped:
		case left <= 0:
			do()
		default:
			timer.Reset(min(left, clockCheck))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(min(max(at.Sub(clock().Round(0)), 0), clockCheck), check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// endSuspended ends the given streams whose tenants are suspended.
func (g *Gateway) endSuspended(streams ...*liveStream) {
	for _, stream := range streams {
		if reason := g.suspended(stream.tenant, stream.principal); reason != "" {
			stream.end(&suspendedError{reason})
		}
	}
}

// endRevoked ends the given streams whose credential was revoked.
func (g *Gateway) endRevoked(streams ...*liveStream) {
	for _, stream := range streams {
		if g.verifier.Revoked(stream.principal) {
			stream.end(auth.ErrRevoked)
		}
	}
}

// endCause returns the error of a stream that liveContext has ended, nil if it did not.
func (c *Call) endCause(ctx context.Context) error {
	cause := context.Cause(ctx)
	var suspended *suspendedError
	switch {
	case errors.As(cause, &suspended):
		return c.denySuspended(suspended.reason)
	case errors.Is(cause, auth.ErrExpired),
		errors.Is(cause, auth.ErrExpiredCertificate),
		errors.Is(cause, auth.ErrRevoked):
		return c.denyCredential(cause)
	case errors.Is(cause, errSuperseded):
		return connect.NewError(connect.CodeAborted, errSuperseded.Error())
	}
	return nil
}

func (c *Call) denySuspended(reason string) error {
	return c.deny(ReasonTenantSuspended, connect.NewError(connect.CodePermissionDenied, reason))
}
