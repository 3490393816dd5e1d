package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/emptypb"
)

// cutting runs a node that answers a call with half a message and then ends the stream
// or the connection.
func cutting(t *testing.T, end func(conn net.Conn, framer *http2.Framer, stream uint32) error) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = conn.Close() }()
		done <- halfAnswer(conn, end)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func halfAnswer(conn net.Conn, end func(net.Conn, *http2.Framer, uint32) error) error {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		if _, called := frame.(*http2.HeadersFrame); !called {
			continue
		}
		stream := frame.Header().StreamID
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}} {
			if err := encoder.WriteField(field); err != nil {
				return err
			}
		}
		return errors.Join(
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}),
			framer.WriteData(stream, false, []byte{0, 0, 0, 0, 10, 1, 2, 3}), // three bytes of ten
			end(conn, framer, stream),
		)
	}
}

// unavailable calls the node, which answers with half a message, does something
// meanwhile, and expects the gateway's own word that the node is gone.
func unavailable(t *testing.T, streamType connect.StreamType, endpoint string, meanwhile func(*Pool)) {
	t.Helper()
	pool := NewPool(PoolConfig{})
	t.Cleanup(pool.Close) // before the node ends
	ctx, cancel := context.WithCancel(WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint))
	defer cancel()
	stream, err := contextkit.NewClient(NewTransport(pool)).CallClientStream(ctx, connect.Spec{Procedure: "/any.Service/Call", StreamType: streamType})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(&emptypb.Empty{}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { meanwhile(pool) })
	err = stream.Receive(&emptypb.Empty{})
	if verdict, ok := errors.AsType[*connect.Error](err); !ok || verdict.Code() != connect.CodeUnavailable || verdict.IsRemote() {
		t.Errorf("%v, want UNAVAILABLE of our own", err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnAnswerThatIsCutOffIsUnavailable(t *testing.T) {
	for name, end := range map[string]func(net.Conn, *http2.Framer, uint32) error{
		"with its connection": func(conn net.Conn, _ *http2.Framer, _ uint32) error { return conn.Close() },
		"with its stream": func(conn net.Conn, framer *http2.Framer, stream uint32) error {
			err := framer.WriteRSTStream(stream, http2.ErrCodeNo)
			_, _ = io.Copy(io.Discard, conn) // its error is that the client has left
			return err
		},
	} {
		for kind, streamType := range map[string]connect.StreamType{"unary": connect.StreamTypeUnary, "stream": connect.StreamTypeServer} {
			t.Run(kind+" "+name, func(t *testing.T) {
				unavailable(t, streamType, cutting(t, end), func(*Pool) {})
			})
		}
	}
}

func TestStreamsOfAnAbandonedNodeAreUnavailable(t *testing.T) {
	for range 20 { // the stream's end and the connection's race
		answered := make(chan struct{})
		endpoint := cutting(t, func(conn net.Conn, _ *http2.Framer, _ uint32) error {
			close(answered)
			_, _ = io.Copy(io.Discard, conn) // its error is that the client has left
			return nil
		})
		unavailable(t, connect.StreamTypeServer, endpoint, func(pool *Pool) {
			<-answered
			pool.Abandon(endpoint)
		})
	}
}
