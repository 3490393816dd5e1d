package upstream

import (
	"context"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/gateway/upstream/grpcgo"
	"github.com/headgate/headgate/gateway/upstream/h2"
)

// client is a channel to one peer. It is safe for concurrent use.
type client interface {
	// Open begins a call. ctx bounds the call, and its deadline, less the deadline margin (see
	// [contextkit.CalleeTime]), is sent as the call's. Errors: that of ctx, [*channels.BrokenError],
	// [channels.ErrHeadersTooLarge].
	Open(ctx context.Context, request channels.Request) (callStream, error)
	// Answered returns when a part of any call's answer was last received, the zero time if none was.
	Answered() time.Time
	// Close closes the channel. Calls in flight fail with a [channels.BrokenError] whose cause is
	// [channels.ErrClosed].
	Close()
}

// callStream is a call. One goroutine may send while another receives; Close ends both.
type callStream interface {
	// Send sends a message; last reports that it is the last one. It returns when the message's memory
	// may be reused. Errors: that of ctx, which ends the stream; [io.EOF] when the call has ended, for
	// the reason that Receive returns.
	Send(ctx context.Context, message []byte, last bool) error
	// CloseSend ends the request.
	CloseSend()
	// Receive returns the next message, which must be freed. Errors: [io.EOF] after the peer's trailers;
	// [*channels.BrokenError], also with the cause [channels.ErrTooLarge] or [channels.ErrCompressed];
	// [*channels.MeterError]; that of ctx, which ends the stream.
	Receive(ctx context.Context) (mem.Buffer, error)
	// Header returns the answer's header fields, after the first message or the end. It is empty for a
	// trailers-only answer.
	Header() []hpack.HeaderField
	// Trailer returns the answer's trailers, after it has ended.
	Trailer() []hpack.HeaderField
	// Close ends the call, if it has not ended, and frees unreceived messages.
	Close()
}

// newClient returns the selected client of a peer (host:port), which its first call connects.
func newClient(address string, config channels.Config) client {
	if config.FastPaths.Upstream.IsPlain() {
		return plainClient{grpcgo.NewChannel(address, config)}
	}
	return fastClient{h2.NewChannel(address, config)}
}

type fastClient struct{ *h2.Channel }

// Open implements [client].
func (c fastClient) Open(ctx context.Context, request channels.Request) (callStream, error) {
	stream, err := c.Channel.Open(ctx, request)
	if err != nil {
		return nil, err
	}
	return stream, nil
}

type plainClient struct{ *grpcgo.Channel }

// Open implements [client].
func (c plainClient) Open(ctx context.Context, request channels.Request) (callStream, error) {
	stream, err := c.Channel.Open(ctx, request)
	if err != nil {
		return nil, err
	}
	return stream, nil
}
