package h2

import (
	"context"
	"testing"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/gateway/upstream/grpcgo"
)

// stream is a call of either client.
type stream interface {
	Send(ctx context.Context, message []byte, last bool) error
	CloseSend()
	Receive(ctx context.Context) (mem.Buffer, error)
	Header() []hpack.HeaderField
	Trailer() []hpack.HeaderField
	Close()
}

// calling begins calls: a channel of either client, or an [opener].
type calling interface {
	Open(ctx context.Context, request channels.Request) (stream, error)
}

// client is a channel of either client.
type client interface {
	calling
	Close()
}

// fast is a channel of this package.
type fast struct{ *Channel }

func (f fast) Open(ctx context.Context, request channels.Request) (stream, error) {
	s, err := f.Channel.Open(ctx, request)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// plain is a channel of grpc-go.
type plain struct{ *grpcgo.Channel }

func (p plain) Open(ctx context.Context, request channels.Request) (stream, error) {
	s, err := p.Channel.Open(ctx, request)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connecting returns a channel to an address that ends with the test.
type connecting func(t *testing.T, address string, config channels.Config) client

// eachClient runs a test over both clients of calls to nodes.
func eachClient(t *testing.T, test func(t *testing.T, to connecting)) {
	t.Helper()
	for name, create := range map[string]func(address string, config channels.Config) client{
		"fast": func(address string, config channels.Config) client { return fast{NewChannel(address, config)} },
		"plain": func(
			address string, config channels.Config,
		) client {
			return plain{grpcgo.NewChannel(address, config)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(t *testing.T, address string, config channels.Config) client {
				t.Helper()
				channel := create(address, config)
				t.Cleanup(channel.Close)
				return channel
			})
		})
	}
}

// isPlain reports whether to connects by grpc-go.
func isPlain(t *testing.T, to connecting) bool {
	t.Helper()
	_, ok := to(t, "127.0.0.1:0", config()).(plain)
	return ok
}
