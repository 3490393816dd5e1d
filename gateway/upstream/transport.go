package upstream

import (
	"context"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
)

// endpoint is where a call goes, host:port.
type endpoint string

// WithEndpoint returns ctx for a call to an endpoint (host:port).
func WithEndpoint(ctx context.Context, address string) context.Context {
	return contextkit.Carry(ctx, endpoint(address))
}

// Transport implements [connect.Transport] over the pool's channels, and over what is
// local. The call's context names its endpoint, see [WithEndpoint]. Messages are
// *frame.Frame or protobuf messages.
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
	info.Spec, info.PeerAddr, info.Protocol, info.Codec = spec, string(to), connect.ProtocolNameGRPC, connect.CodecNameProto
	if t.pool.config.Local != nil {
		if local := t.pool.config.Local(string(to)); local != nil {
			return local.NewClientStream(ctx, spec)
		}
	}
	channel, err := t.pool.take(string(to))
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the upstream cannot be connected to").WithCause(err)
	}
	if spec.StreamType == connect.StreamTypeUnary {
		return &unary{ctx: ctx, channel: channel, info: info}, nil
	}
	return &stream{ctx: ctx, channel: channel, info: info}, nil
}
