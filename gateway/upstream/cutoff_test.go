package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
)

// acting runs a node that runs a function for each call, on one connection after the other.
func acting(t *testing.T, does func(framer *http2.Framer, stream uint32) error) string {
	t.Helper()
	return accepting(t, func(conn net.Conn) error { return calls(conn, does) })
}

// cutting runs a node that answers a call with half a message and then ends the stream or the
// connection.
func cutting(t *testing.T, end func(conn net.Conn, framer *http2.Framer, stream uint32) error) string {
	t.Helper()
	return accepting(t, func(conn net.Conn) error {
		return calls(conn, func(framer *http2.Framer, stream uint32) error {
			return errors.Join(
				answerHeaders(framer, stream),
				framer.WriteData(stream, false, []byte{0, 0, 0, 0, 10, 1, 2, 3}), // three bytes of ten
				end(conn, framer, stream),
			)
		})
	})
}

func accepting(t *testing.T, serve func(conn net.Conn) error) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var all error
		for {
			conn, err := listener.Accept()
			if err != nil {
				done <- all
				return
			}
			all = errors.Join(all, serve(conn))
			_ = conn.Close() // it may be already
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// calls runs a function for each call of a connection until the client disconnects.
func calls(conn net.Conn, does func(framer *http2.Framer, stream uint32) error) error {
	return frames(conn, func(framer *http2.Framer, frame http2.Frame) error {
		if _, called := frame.(*http2.HeadersFrame); called {
			return does(framer, frame.Header().StreamID)
		}
		return nil
	})
}

// frames runs a function for each frame of a connection until the client disconnects.
func frames(conn net.Conn, does func(framer *http2.Framer, frame http2.Frame) error) error {
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
			return nil //nolint:nilerr // the client has left
		}
		if err := does(framer, frame); err != nil {
			return err
		}
	}
}

func answerHeaders(framer *http2.Framer, stream uint32) error {
	return fields(framer, stream, false, ":status", "200", "content-type", "application/grpc")
}

func trailers(framer *http2.Framer, stream uint32) error {
	return fields(framer, stream, true, "grpc-status", "0")
}

// fields sends a header block, given as names and values in turn, without indexing.
func fields(framer *http2.Framer, stream uint32, last bool, list ...string) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(list); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1], Sensitive: true}); err != nil {
			return err
		}
	}
	return framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      stream,
		BlockFragment: block.Bytes(),
		EndHeaders:    true,
		EndStream:     last,
	})
}

// unavailable calls the node, which answers with half a message, does something
// concurrently, and expects the gateway to report that the node is gone.
func unavailable(
	t *testing.T, config PoolConfig, streamType connect.StreamType, endpoint string, meanwhile func(*Pool),
) {
	t.Helper()
	pool := NewPool(config)
	t.Cleanup(pool.Close) // before the node ends
	ctx, cancel := context.WithCancel(WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint))
	defer cancel()
	stream, err := contextkit.NewClient(NewTransport(pool)).CallClientStream(ctx,
		connect.Spec{Procedure: "/any.Service/Call", StreamType: streamType})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(&emptypb.Empty{}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { meanwhile(pool) })
	err = stream.Receive(&emptypb.Empty{})
	if verdict, ok := errors.AsType[*connect.Error](err); !ok || verdict.Code() != connect.CodeUnavailable ||
		verdict.IsRemote() {
		t.Errorf("%v, want UNAVAILABLE of our own", err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestTransport_TruncatedAnswerIsUnavailable(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for name, end := range map[string]func(net.Conn, *http2.Framer, uint32) error{
			"with its connection": func(conn net.Conn, _ *http2.Framer, _ uint32) error { return conn.Close() },
			"after a farewell": func(conn net.Conn, framer *http2.Framer, stream uint32) error {
				return errors.Join(framer.WriteGoAway(stream, http2.ErrCodeNo, nil), conn.Close())
			},
		} {
			for kind, streamType := range map[string]connect.StreamType{
				"unary": connect.StreamTypeUnary, "stream": connect.StreamTypeServer,
			} {
				t.Run(kind+" "+name, func(t *testing.T) {
					unavailable(t, config, streamType, cutting(t, end), func(*Pool) {})
				})
			}
		}
	})
}

func TestAbandon_StreamsAreUnavailable(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for range 20 { // the stream's end and the connection's race
			answered := make(chan struct{})
			endpoint := cutting(t, func(conn net.Conn, _ *http2.Framer, _ uint32) error {
				close(answered)
				_, _ = io.Copy(io.Discard, conn) // its error is that the client has left
				return nil
			})
			unavailable(t, config, connect.StreamTypeServer, endpoint, func(pool *Pool) {
				<-answered
				pool.Abandon(endpoint)
			})
		}
	})
}

func TestUnary_CallNotBegunByNodeIsRetried(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for name, refuse := range map[string]func(framer *http2.Framer, stream uint32) error{
			"refused": func(framer *http2.Framer, stream uint32) error {
				return framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			},
			"refused with all that follow": func(framer *http2.Framer, _ uint32) error {
				return framer.WriteGoAway(0, http2.ErrCodeNo, nil)
			},
		} {
			for _, times := range []int{1, 2} { // the second is the caller's to repeat, or not
				t.Run(fmt.Sprintf("%s, %d times", name, times), func(t *testing.T) {
					endpoint := refusing(t, times, refuse, (*http2.DataFrame).StreamEnded)
					err := callOnce(t, config, endpoint, connect.StreamTypeUnary)
					if times == 1 && err != nil || times == 2 && connect.CodeOf(err) != connect.CodeUnavailable {
						t.Errorf("%v", err)
					}
				})
			}
		}
	})
}

// refusing runs a node that refuses as many calls as times and then answers a call with an empty message, once a frame
// that ready accepts has arrived.
func refusing[F http2.Frame](
	t *testing.T, times int, refuse func(*http2.Framer, uint32) error, ready func(F) bool,
) string {
	t.Helper()
	refused := 0
	return accepting(t, func(conn net.Conn) error {
		refusedHere := uint32(0)
		return frames(conn, func(framer *http2.Framer, frame http2.Frame) error {
			stream := frame.Header().StreamID
			if _, called := frame.(*http2.HeadersFrame); called && refused < times {
				refused, refusedHere = refused+1, stream
				return refuse(framer, stream)
			}
			if f, ok := frame.(F); !ok || stream <= refusedHere || !ready(f) {
				return nil
			}
			return errors.Join(
				answerHeaders(framer, stream), framer.WriteData(stream, false, make([]byte, 5)),
				trailers(framer, stream),
			)
		})
	})
}

// callOnce calls a node with an empty message, and returns why there was no answer.
func callOnce(t *testing.T, config PoolConfig, endpoint string, streamType connect.StreamType) error {
	t.Helper()
	pool := NewPool(config)
	t.Cleanup(pool.Close)
	ctx := WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint)
	client, spec := contextkit.NewClient(NewTransport(pool)), connect.Spec{
		Procedure:  "/any.Service/Call",
		StreamType: streamType,
	}
	if streamType == connect.StreamTypeUnary {
		return client.CallUnary(ctx, spec, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := client.CallClientStream(ctx, spec)
	if err != nil {
		return err
	}
	if err := stream.Send(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return errors.Join(stream.CloseSend(), stream.Receive(&emptypb.Empty{}), stream.Close())
}

// A node may answer before it has received the request, also a call that the client has sent again.
func TestCall_EarlyAnswerToRepeatedCallIsNoProtocolError(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for _, streamType := range []connect.StreamType{
			connect.StreamTypeUnary, connect.StreamTypeServer, connect.StreamTypeBidi,
		} {
			for range 30 { // the answer and the request race
				endpoint := refusing(t, 1, func(framer *http2.Framer, stream uint32) error {
					return framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				}, func(*http2.HeadersFrame) bool { return true })
				err := callOnce(t, config, endpoint, streamType)
				if err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
					t.Fatalf("stream type %d: %v", streamType, err)
				}
			}
		}
	})
}
