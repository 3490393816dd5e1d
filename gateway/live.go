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
	"github.com/headgate/headgate/internal/rpc"
)

// liveStreams are the open streams. A stream may outlive the credential that admitted it: it
// ends when its credential expires or is withdrawn, and when its tenant is suspended.
type liveStreams struct {
	mu       sync.Mutex
	streams  map[*liveStream]struct{}
	ticketed map[string]*liveStream // by the ids of tickets: each has one stream
}

// liveStream is an open stream.
type liveStream struct {
	tenant    contextkit.TenantID
	principal *auth.Principal
	ticket    string // the id of the ticket that opened it; "": none
	end       context.CancelCauseFunc
}

func (l *liveStreams) join(stream *liveStream) (leave func()) {
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

// all returns the streams that run now.
func (l *liveStreams) all() []*liveStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*liveStream, 0, len(l.streams))
	for stream := range l.streams {
		out = append(out, stream)
	}
	return out
}

// suspendedError says why the calls for a tenant are refused.
type suspendedError struct{ reason string }

func (e *suspendedError) Error() string { return e.reason }

// while returns a context for a stream that ends with what admitted it; release frees
// it. [Call.ended] says which it was.
func (g *Gateway) while(ctx context.Context, call *Call) (_ context.Context, release func()) {
	ctx, end := context.WithCancelCause(ctx)
	rc, _ := contextkit.FromContext(ctx)
	stream := &liveStream{tenant: rc.TenantID, principal: call.Principal, end: end}
	if ticket := edge.TicketOf(call.Stream); ticket != nil {
		stream.ticket = ticket.ID
	}
	leave := g.live.join(stream)
	g.endSuspended(stream) // if that was decided between its stage and this
	g.endWithdrawn(stream)
	expires := func() bool { return true }
	if until := call.Principal.Until; !until.IsZero() {
		expires = time.AfterFunc(time.Until(until), func() { end(auth.ErrExpired) }).Stop
	}
	return ctx, func() {
		expires()
		leave()
		end(nil)
	}
}

// endSuspended ends streams whose tenants are suspended.
func (g *Gateway) endSuspended(streams ...*liveStream) {
	for _, stream := range streams {
		if reason := g.suspended(stream.tenant, stream.principal); reason != "" {
			stream.end(&suspendedError{reason})
		}
	}
}

// endWithdrawn ends streams whose API keys, or the keys that signed their tokens, were
// withdrawn.
func (g *Gateway) endWithdrawn(streams ...*liveStream) {
	for _, stream := range streams {
		if g.verifier.Withdrawn(stream.principal) {
			stream.end(auth.ErrWithdrawn)
		}
	}
}

// ended returns why a stream was ended although neither side has, nil if it was not.
func (c *Call) ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	var suspended *suspendedError
	switch {
	case errors.As(cause, &suspended):
		return c.denySuspended(suspended.reason)
	case errors.Is(cause, auth.ErrExpired), errors.Is(cause, auth.ErrWithdrawn):
		return c.deny(ruleCredential, unauthenticated(cause))
	case errors.Is(cause, errSuperseded):
		return connect.NewError(connect.CodeAborted, errSuperseded.Error())
	}
	return nil
}

func (c *Call) denySuspended(reason string) error {
	return c.deny(ruleSuspended, rpc.WithDetails(connect.NewError(connect.CodePermissionDenied, reason), rpc.Reason("TENANT_SUSPENDED")))
}
