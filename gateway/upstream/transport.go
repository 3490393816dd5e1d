package upstream

import (
	"context"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// endpoint is where a call goes, host:port.
type endpoint string

// WithEndpoint returns ctx for a call to an endpoint (host:port).
func WithEndpoint(ctx context.Context, address string) context.Context {
	return contextkit.Carry(ctx, endpoint(address))
}

// Opener begins calls. What info says of the call are its procedure (Spec) and its endpoint
// (PeerAddr), and what comes back is written into it. header has its request headers, the
// contract among them (see contextkit.Inject), and may be asked for them more than once; if it
// is a [grpcmeta.Metered], its meter bounds the memory of the answer's messages, and a call
// beyond it ends with the meter's error. Messages are *frame.Frame or protobuf messages.
type Opener interface {
	Open(ctx context.Context, info *connect.CallInfo, header grpcmeta.Header) (connect.ClientStream, error)
}

// Transport is an [Opener] over the pool's channels, and over what is local. For clients
// it implements [connect.Transport]: the call's context names its endpoint then, see
// [WithEndpoint].
type Transport struct{ pool *Pool }

// NewTransport returns a transport over pool.
func NewTransport(pool *Pool) *Transport { return &Transport{pool: pool} }

// NewClientStream implements [connect.Transport].
func (t *Transport) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	to, _ := contextkit.Carried[endpoint](ctx)
	if to == "" {
		return nil, connect.Errorf(connect.CodeInternal, "%s is called without an endpoint", spec.Procedure)
	}
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok {
		ctx, info = connect.NewClientContext(ctx)
	}
	info.Spec, info.PeerAddr = spec, string(to)
	return t.Open(ctx, info, grpcmeta.Of(info.RequestHeader()))
}

// Open implements [Opener].
func (t *Transport) Open(ctx context.Context, info *connect.CallInfo, header grpcmeta.Header) (connect.ClientStream, error) {
	if t.pool.config.Local != nil {
		if local := t.pool.config.Local(info.PeerAddr); local != nil {
			return local.Open(ctx, info, header)
		}
	}
	channel, err := t.pool.take(info.PeerAddr)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the upstream cannot be connected to").WithCause(err)
	}
	info.Protocol, info.Codec = connect.ProtocolNameGRPC, connect.CodecNameProto
	one := outgoing{ctx: ctx, channel: channel, info: info, header: header, meter: grpcmeta.MeterOf(header)}
	if info.Spec.StreamType == connect.StreamTypeUnary {
		return &unary{outgoing: one}, nil
	}
	return &stream{outgoing: one}, nil
}
