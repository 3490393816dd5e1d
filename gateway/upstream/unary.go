package upstream

import (
	"errors"
	"io"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/upstream/channels"
)

// unary is a [connect.ClientStream] of one request and one answer, sent when the answer is
// received. It must be used by one goroutine, as [connect.Client.CallUnary] does.
type unary struct {
	outgoing

	request any
	ended   bool
}

// SendHeaders implements [connect.ClientStream]: headers are sent with the request.
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
	defer u.end()
	wire, err := frame.Wire(u.request)
	if err != nil {
		return connect.NewError(connect.CodeInternal, "the request cannot be encoded").WithCause(err)
	}
	request := channels.Request{
		Message:    wire,
		HasMessage: true,
		Last:       true,
		Whole:      true,
	}
	err = u.call(request, msg)
	// A node that shuts down reports the calls that it has not begun: any of them may be sent
	// again, on another connection (RFC 9113 §8.7).
	if broken, ok := errors.AsType[*channels.BrokenError](err); ok && broken.Refused {
		err = u.call(request, msg)
	}
	return localError(u.ctx, err)
}

// call sends the request and decodes the answer into msg. Errors are the node's verdict, or those
// of the stream.
func (u *unary) call(request channels.Request, msg any) error {
	stream, err := u.begin(request)
	if err != nil {
		return err
	}
	defer stream.Close()
	return receiveOne(u.ctx, stream, u.info, msg)
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
