package upstream

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// endpoint is the address of a call's node, host:port.
type endpoint string

// WithEndpoint returns a context for a call to an endpoint (host:port).
func WithEndpoint(ctx context.Context, address string) context.Context {
	return contextkit.Carry(ctx, endpoint(address))
}

// Opener opens calls. info has the procedure (Spec) and the endpoint (PeerAddr) of the call, and
// receives the response headers and trailers. header writes the request headers, including the
// transport contract (see contextkit.Inject); it may be called more than once. If it is a
// [grpcmeta.Metered], its meter bounds the memory of the answer's messages, and a call beyond it
// ends with the meter's error. Messages are *frame.Frame or protobuf messages.
type Opener interface {
	Open(ctx context.Context, info *connect.CallInfo, header grpcmeta.Header) (connect.ClientStream, error)
}

// Transport is an [Opener] over the channels of a pool and over local services. For clients it
// implements [connect.Transport]; the call's context must then have an endpoint, see
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
func (t *Transport) Open(
	ctx context.Context, info *connect.CallInfo, header grpcmeta.Header,
) (connect.ClientStream, error) {
	if t.pool.config.Local != nil {
		if local := t.pool.config.Local(info.PeerAddr); local != nil {
			return local.Open(ctx, info, header)
		}
	}
	channel, err := t.pool.acquire(info.PeerAddr)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "no connection to the upstream").WithCause(err)
	}
	info.Protocol, info.Codec = connect.ProtocolNameGRPC, connect.CodecNameProto
	one := outgoing{
		ctx:     ctx,
		channel: channel,
		info:    info,
		header:  header,
		meter:   grpcmeta.MeterOf(header),
	}
	if info.Spec.StreamType == connect.StreamTypeUnary {
		return &unary{outgoing: one}, nil
	}
	return &stream{outgoing: one}, nil
}
