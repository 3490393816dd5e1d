package rpc

import (
	"context"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/peer"

	"github.com/headgate/headgate/contextkit"
)

// Outcome is the result of a call.
type Outcome struct {
	// Procedure and Protocol are as Connect names them.
	Procedure, Protocol string
	// Started is when the call began, and Took how long it took.
	Started time.Time
	Took    time.Duration
	// Err is the call's error; nil: it succeeded.
	Err error
}

// OwnFault reports whether the process, or an upstream of it, is the cause of the failure.
func (o Outcome) OwnFault() bool { return ownFault(o.Err) }

// Code returns the code of the call's error, 0 for OK. It is one of the codes that
// [CodeName] names.
func (o Outcome) Code() connect.Code { return codeOf(o.Err) }

// Ended is a call that has ended.
type Ended struct {
	Outcome

	// Server and Client are the addresses of its two ends, host:port; "" if not known.
	Server, Client string
	// Principal is the subject of the gateway's caller; "" if not known.
	Principal string
}

// Ends returns the addresses of the two ends of a server's call; "" if not known. Of a call that
// a trusted proxy has forwarded the client is the proxy's, with port 0. It allocates.
func Ends(ctx context.Context, info *connect.CallInfo) (server, client string) {
	client = info.PeerAddr
	if p, ok := peer.FromContext(ctx); ok {
		if client == "" {
			client = addrText(p.Addr)
		}
		return addrText(p.LocalAddr), client
	}
	local, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	return addrText(local), client
}

func addrText(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return addr.String()
}

// reportEnded is the interceptor that calls Config.Ended.
func (s *Server) reportEnded(next connect.ServerFunc) connect.ServerFunc {
	if s.config.Ended == nil {
		return next
	}
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if !counts(spec.Procedure) {
			return next(ctx, spec, stream)
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		rc := contextkit.In(ctx)
		err := next(ctx, spec, stream)
		ended := Ended{Outcome: Outcome{
			Procedure: spec.Procedure,
			Protocol:  info.Protocol,
			Started:   rc.Began(),
			Took:      time.Since(rc.Began()),
			Err:       err,
		}}
		ended.Server, ended.Client = Ends(ctx, info)
		ended.Principal = contextkit.Principal(info.RequestHeader())
		s.config.Ended(*rc, ended)
		return err
	}
}
