package rpc

import (
	"net/http"
	"net/netip"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/proxies"
)

// behindProxies replaces the address of requests that trusted proxies have forwarded by that of the
// proxy's client, before anything else reads it, and bounds the calls in flight of each such
// client: the bounds of connections do not distinguish them.
func (l *clientLimit) behindProxies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !l.proxies.Trusts(from.Addr()) {
			next.ServeHTTP(w, r)
			return
		}
		origin := l.proxies.Origin(from.Addr(), func(name string) []string { return r.Header[name] })
		leave, refused := l.enterCall(client(origin.Client))
		if refused != nil {
			if rpcErrors.IsSupported(r) {
				_ = rpcErrors.Write(w, r, refused) // it fails if the client has disconnected
			} else {
				_ = rpcErrors.Write(w, plainRequest, refused) // likewise
			}
			return
		}
		defer leave()
		copied := r.WithContext(contextkit.Carry(r.Context(), origin))
		if origin.Client != from.Addr() {
			copied.RemoteAddr = netip.AddrPortFrom(origin.Client, 0).String()
		}
		next.ServeHTTP(w, copied)
	})
}

// plainRequest is a request of no RPC protocol: errors that answer it are JSON.
var plainRequest = &http.Request{Method: http.MethodPut, Header: http.Header{}}

// forwarded is [clientLimit.behindProxies] for a call of the gRPC address. leave must be called
// when the call ends.
func (l *clientLimit) forwarded(info *connect.CallInfo) (leave func(), refused *connect.Error) {
	from, _ := netip.ParseAddrPort(info.PeerAddr) // the zero address, which is not trusted, if it is none
	if !l.proxies.Trusts(from.Addr()) {
		return func() {}, nil
	}
	origin := l.proxies.Origin(from.Addr(), info.RequestHeader().Values)
	if origin.Client != from.Addr() {
		info.PeerAddr = netip.AddrPortFrom(origin.Client, 0).String()
	}
	return l.enterCall(client(origin.Client))
}

// enterCall counts a call of a client of a trusted proxy until leave is called. It returns
// RESOURCE_EXHAUSTED if the client has too many.
func (l *clientLimit) enterCall(addr netip.Addr) (leave func(), refused *connect.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams > 0 && l.calls[addr] >= l.streams {
		if l.refusedCalls != nil {
			l.refusedCalls.Inc()
		}
		return nil, WithDetails(
			connect.NewError(connect.CodeResourceExhausted,
				"the client's address has too many calls in flight: wait for some to end"),
			Reason(ReasonTooManyCalls),
		)
	}
	l.calls[addr]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.calls[addr]--; l.calls[addr] == 0 {
			delete(l.calls, addr)
		}
	}, nil
}

// IsSecure reports whether the client has used TLS: to the trusted proxy that has forwarded the
// request, if it reports it, else to this server.
func IsSecure(r *http.Request) bool {
	if origin, ok := contextkit.Carried[proxies.Origin](r.Context()); ok && origin.Scheme != "" {
		return origin.Scheme == "https"
	}
	return r.TLS != nil
}
