package upstream

import (
	"context"
	"io"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis/grpcmeta"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// unary is a [connect.ClientStream] of one request and one answer, made as one
// call when the answer is asked for: a stream of grpc-go's has a goroutine that
// waits for its end beside it, a unary call has none. It is for one goroutine, as
// [connect.Client.CallUnary] uses it.
type unary struct {
	ctx     context.Context //nolint:containedctx // the stream is the call; ends with it
	channel *channel
	info    *connect.CallInfo
	request any
	ended   bool

	header, trailer metadata.MD                         // of the answer
	options         [channelOptions + 2]grpc.CallOption // the channel's, and those that fill in header and trailer
}

// SendHeaders implements [connect.ClientStream]: they go with the request.
func (u *unary) SendHeaders() error { return nil }

// Send implements [connect.ClientStream].
func (u *unary) Send(msg any) error {
	u.request = msg
	return nil
}

// CloseSend implements [connect.ClientStream].
func (u *unary) CloseSend() error { return nil }

// Receive implements [connect.ClientStream].
func (u *unary) Receive(msg any) error {
	if u.ended {
		return io.EOF
	}
	if u.request == nil {
		return connect.Errorf(connect.CodeInternal, "%s is called without a request", u.info.Spec.Procedure)
	}
	ctx := metadata.NewOutgoingContext(u.ctx, grpcmeta.From(u.info.RequestHeader()))
	options := append(append(u.options[:0], u.channel.options[:]...), grpc.Header(&u.header), grpc.Trailer(&u.trailer))
	err := u.channel.conn.Invoke(ctx, u.info.Spec.Procedure, u.request, msg, options...)
	grpcmeta.Into(u.info.ResponseHeader(), u.header)
	grpcmeta.Into(u.info.ResponseTrailer(), u.trailer)
	u.end()
	switch {
	case err == nil:
		return nil
	case cutOff(err), len(u.header) == 0 && len(u.trailer) == 0: // an answer has a content type at least
		return local(u.ctx, err)
	}
	return remote(err)
}

// Close implements [connect.ClientStream].
func (u *unary) Close() error {
	u.end()
	return nil
}

func (u *unary) end() {
	if !u.ended {
		u.ended = true
		u.channel.release()
	}
}
