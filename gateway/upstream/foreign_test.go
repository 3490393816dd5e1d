package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/contextkit"
)

// message is a message of three bytes, with its prefix.
var message = []byte{0, 0, 0, 0, 3, 0x0a, 1, 'x'}

// points of an answer at which a node may run a function.
var points = map[string]func(framer *http2.Framer, stream uint32) error{
	"before the headers": func(*http2.Framer, uint32) error { return nil },
	"after the headers":  answerHeaders,
	"after a message": func(framer *http2.Framer, stream uint32) error {
		return errors.Join(answerHeaders(framer, stream), framer.WriteData(stream, false, message))
	},
	"within a message": func(framer *http2.Framer, stream uint32) error {
		return errors.Join(answerHeaders(framer, stream), framer.WriteData(stream, false, message[:6]))
	},
}

// ending calls a node, and returns its messages and the call's error.
func ending(t *testing.T, config PoolConfig, kind connect.StreamType, endpoint string) (messages int, err error) {
	t.Helper()
	pool := NewPool(config)
	defer pool.Close()
	ctx, cancel := context.WithTimeout(WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint), 20*time.Second)
	defer cancel()
	stream, err := contextkit.NewClient(NewTransport(pool)).CallClientStream(ctx,
		connect.Spec{Procedure: "/any.Service/Call", StreamType: kind})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }() // its error is Receive's
	_ = stream.Send(&emptypb.Empty{})     // the call may have ended already; Receive returns how
	_ = stream.CloseSend()
	for ; ; messages++ {
		if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
			return messages, err
		}
	}
}

func TestReset_MapsToGRPCCodes(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for code, want := range map[http2.ErrCode]connect.Code{
			http2.ErrCodeNo:                 connect.CodeInternal,
			http2.ErrCodeProtocol:           connect.CodeInternal,
			http2.ErrCodeInternal:           connect.CodeInternal,
			http2.ErrCodeFlowControl:        connect.CodeResourceExhausted,
			http2.ErrCodeSettingsTimeout:    connect.CodeInternal,
			http2.ErrCodeStreamClosed:       connect.CodeInternal,
			http2.ErrCodeFrameSize:          connect.CodeInternal,
			http2.ErrCodeRefusedStream:      connect.CodeUnavailable,
			http2.ErrCodeCancel:             connect.CodeCanceled,
			http2.ErrCodeCompression:        connect.CodeInternal,
			http2.ErrCodeConnect:            connect.CodeInternal,
			http2.ErrCodeEnhanceYourCalm:    connect.CodeResourceExhausted,
			http2.ErrCodeInadequateSecurity: connect.CodePermissionDenied,
			http2.ErrCodeHTTP11Required:     connect.CodeInternal,
			http2.ErrCode(99):               connect.CodeUnknown,
		} {
			for point, before := range points {
				for kind, streamType := range map[string]connect.StreamType{
					"unary": connect.StreamTypeUnary, "client stream": connect.StreamTypeClient,
					"server stream": connect.StreamTypeServer,
				} {
					t.Run(fmt.Sprintf("%v %s, %s", code, point, kind), func(t *testing.T) {
						var asked atomic.Int64
						endpoint := acting(t, func(framer *http2.Framer, stream uint32) error {
							asked.Add(1)
							return errors.Join(before(framer, stream), framer.WriteRSTStream(stream, code))
						})
						messages, err := ending(t, config, streamType, endpoint)
						verdict, ok := errors.AsType[*connect.Error](err)
						if !ok || verdict.Code() != want || verdict.IsRemote() {
							t.Errorf("the call ends with %v, want %v", err, want)
						}
						if wanted := point == "after a message" &&
							streamType == connect.StreamTypeServer; messages > 0 != wanted {
							t.Errorf("%d messages are received", messages)
						}
						wantAgain := code == http2.ErrCodeRefusedStream && point == "before the headers" &&
							streamType == connect.StreamTypeUnary
						mayAgain := wantAgain
						if config.FastPaths.Upstream.IsPlain() && code == http2.ErrCodeRefusedStream {
							// grpc-go sends each refused call again until its caller has received a message. A message
							// that arrives together with the reset may not have been received yet.
							wantAgain, mayAgain = point != "after a message", true
						}
						if again := asked.Load() > 1; again && !mayAgain || !again && wantAgain {
							t.Errorf("the call is sent %d times", asked.Load())
						}
					})
				}
			}
		}
	})
}

func TestReset_CancelAtDeadlineIsDeadlineExceeded(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		endpoint := acting(t, func(framer *http2.Framer, stream uint32) error {
			return framer.WriteRSTStream(stream, http2.ErrCodeCancel)
		})
		pool := NewPool(config)
		defer pool.Close()
		// So close that the node's own deadline may have passed.
		ctx, cancel := context.WithTimeout(WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint),
			contextkit.DeadlineMargin)
		defer cancel()
		err := contextkit.NewClient(NewTransport(pool)).CallUnary(
			ctx, connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary}, &emptypb.Empty{},
			&emptypb.Empty{},
		)
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the call ends with %v", err)
		}
	})
}

func TestAnswer_ForeignMapsHTTPStatus(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		text := []string{"content-type", "text/plain"}
		for name, row := range map[string]struct {
			fields []string
			code   connect.Code
		}{
			"a path that is not there": {append([]string{":status", "404"}, text...), connect.CodeUnimplemented},
			"without a content type":   {[]string{":status", "404"}, connect.CodeUnimplemented},
			"a bad request":            {append([]string{":status", "400"}, text...), connect.CodeInternal},
			"no credential":            {append([]string{":status", "401"}, text...), connect.CodeUnauthenticated},
			"forbidden":                {append([]string{":status", "403"}, text...), connect.CodePermissionDenied},
			"too many":                 {append([]string{":status", "429"}, text...), connect.CodeUnavailable},
			"a proxy without a node":   {append([]string{":status", "502"}, text...), connect.CodeUnavailable},
			"another media type":       {append([]string{":status", "415"}, text...), connect.CodeUnknown},
			"a broken handler":         {append([]string{":status", "500"}, text...), connect.CodeUnknown},
			"a page":                   {append([]string{":status", "200"}, text...), connect.CodeUnknown},
			"gRPC-Web": {
				[]string{":status", "200", "content-type", "application/grpc-web+proto"}, connect.CodeUnknown,
			},
			"Connect": {
				[]string{":status", "200", "content-type", "application/proto"}, connect.CodeUnknown,
			},
		} {
			for ends, end := range map[string]func(framer *http2.Framer, stream uint32) error{
				"a body": func(framer *http2.Framer, stream uint32) error {
					return errors.Join(framer.WriteData(stream, false, []byte("404 page ")),
						framer.WriteData(stream, true, []byte("not found\n")))
				},
				"a body that looks like a message": func(
					framer *http2.Framer, stream uint32,
				) error {
					return framer.WriteData(stream, true, message)
				},
				"an empty body": func(
					framer *http2.Framer, stream uint32,
				) error {
					return framer.WriteData(stream, true, nil)
				},
				"trailers": func(framer *http2.Framer, stream uint32) error {
					return fields(framer, stream, true, "x-other", "1")
				},
				"a reset": func(framer *http2.Framer, stream uint32) error {
					return framer.WriteRSTStream(stream, http2.ErrCodeInternal)
				},
				"nothing more": func(*http2.Framer, uint32) error { return nil },
				"a reset, refusing": func(framer *http2.Framer, stream uint32) error {
					return framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				},
			} {
				if config.FastPaths.Upstream.IsPlain() && !strings.Contains(ends, "body") && ends != "trailers" {
					continue // grpc-go reads the body first
				}
				for kind, streamType := range map[string]connect.StreamType{
					"unary": connect.StreamTypeUnary, "client stream": connect.StreamTypeClient,
					"server stream": connect.StreamTypeServer,
				} {
					t.Run(name+", then "+ends+", "+kind, func(t *testing.T) {
						var asked atomic.Int64
						endpoint := acting(t, func(framer *http2.Framer, stream uint32) error {
							asked.Add(1)
							err := fields(framer, stream, false, row.fields...)
							_ = end(framer, stream) // its error is that the client has what it needs, and left
							return err
						})
						messages, err := ending(t, config, streamType, endpoint)
						verdict, ok := errors.AsType[*connect.Error](err)
						if !ok || verdict.Code() != row.code || verdict.IsRemote() || messages != 0 {
							t.Errorf("the call ends with %v after %d messages, want %v", err, messages, row.code)
						}
						if asked.Load() != 1 {
							t.Errorf("the call is sent %d times", asked.Load())
						}
					})
				}
			}
		}
	})
}

func TestAnswer_GRPCStatusTakesPrecedence(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		endpoint := acting(t, func(framer *http2.Framer, stream uint32) error {
			return fields(
				framer, stream, true, ":status", "503", "content-type", "application/grpc", "grpc-status", "5",
				"grpc-message", "no such wallet",
			)
		})
		_, err := ending(t, config, connect.StreamTypeUnary, endpoint)
		if verdict, ok := errors.AsType[*connect.Error](err); !ok || verdict.Code() != connect.CodeNotFound ||
			!verdict.IsRemote() {
			t.Errorf("the call ends with %v, want the node's NOT_FOUND", err)
		}
	})
}
