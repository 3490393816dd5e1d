// Package grpcgo is the plain client of calls to nodes: a channel to one peer by grpc-go's client, with the behaviour
// of [github.com/headgate/headgate/gateway/upstream/h2], the fast path.
//
// grpc-go reports the end of a call as a status. Whether the status is the peer's comes from its stats handler; what
// ended a call without the peer's status, only from its text, which the tests check against the
// current version. It differs from the fast path in this:
//   - grpc-go itself sends a call again, once, that the peer reports as not processed: streams too, and until the
//     first message of the answer has been received.
//   - If a call that it has sent again is answered before the request is on the connection, it drops the answer, and
//     the call is broken.
//   - A message is metered when it has arrived completely. Until then the flow control windows and MaxMessageBytes
//     bound it.
//   - An answer that is not gRPC ends the call when its body has ended, or has more than 1 KiB.
//   - An answer without a status is the peer's UNKNOWN, and one with an invalid binary header is INTERNAL.
//   - A channel whose peer cannot be reached tries to connect also while there are no calls.
package grpcgo

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// Channel is the path to one peer. It is safe for concurrent use.
type Channel struct {
	config   channels.Config
	conn     *grpc.ClientConn
	invalid  error // the reason that the address cannot be called; nil: it can
	began    time.Time
	answered atomic.Int64          // time of the last received part of an answer, since began
	failure  atomic.Pointer[error] // of the last attempt to connect; nil: it succeeded
	closed   atomic.Bool
}

// NewChannel returns a channel to an address (host:port). The first call connects it.
func NewChannel(address string, config channels.Config) *Channel {
	c := &Channel{config: config, began: time.Now()}
	c.conn, c.invalid = grpc.NewClient("passthrough:///"+address,
		grpc.WithContextDialer(c.dial),
		grpc.WithTransportCredentials(security{c, address}),
		grpc.WithStatsHandler(observer{c}),
		grpc.WithUserAgent(config.UserAgent),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // except of calls that the peer has not processed
		grpc.WithIdleTimeout(0),
		grpc.WithStaticStreamWindowSize(int32(config.StreamWindow)),
		grpc.WithStaticConnWindowSize(int32(config.ConnWindow)),
		grpc.WithMaxHeaderListSize(channels.MaxHeaderBytes),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  config.FirstBackoff,
				Multiplier: 2,
				Jitter:     0.2,
				MaxDelay:   config.MaxBackoff,
			},
			MinConnectTimeout: config.ConnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: config.PingAfter, Timeout: config.PingTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(config.MaxMessageBytes),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
			experimental.AcceptCompressors(noneName),
		),
	)
	return c
}

// dial connects to the address.
func (c *Channel) dial(ctx context.Context, address string) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		c.failure.Store(&err)
		return nil, err
	}
	return c.config.FastPaths.Conn(raw), nil
}

// Close closes the channel. Calls in flight fail with a [channels.BrokenError] whose cause is [channels.ErrClosed].
func (c *Channel) Close() {
	if !c.closed.Swap(true) && c.invalid == nil {
		_ = c.conn.Close() // it fails if it is closed already
	}
}

// Answered returns when a part of any call's answer was last received, the zero time if none was.
func (c *Channel) Answered() time.Time {
	since := c.answered.Load()
	if since == 0 {
		return time.Time{}
	}
	return c.began.Add(time.Duration(since))
}

// none is the only compressor that channels offer, so that answers are not compressed: given no names,
// [experimental.AcceptCompressors] offers all that the process has registered.
type none struct{}

// noneName is its name. It is registered before anything runs, as grpc-go requires.
var noneName = func() string {
	encoding.RegisterCompressor(none{})
	return none{}.Name()
}()

// Name implements [encoding.Compressor].
func (none) Name() string { return "headgate-none" }

var errNone = errors.New("grpcgo: " + none{}.Name() + " is not an encoding")

// Compress implements [encoding.Compressor].
func (none) Compress(io.Writer) (io.WriteCloser, error) { return nil, errNone }

// Decompress implements [encoding.Compressor].
func (none) Decompress(io.Reader) (io.Reader, error) { return nil, errNone }
