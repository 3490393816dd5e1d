package upstream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
)

func TestVerdict_StatusIsReturned(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		detail, err := anypb.New(&emptypb.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		details, err := proto.Marshal(&spb.Status{Code: 5, Details: []*anypb.Any{detail}})
		if err != nil {
			t.Fatal(err)
		}
		grpc := []string{":status", "200", "content-type", "application/grpc"}
		for name, row := range map[string]struct {
			fields  []string // of trailers alone
			code    connect.Code
			message string
			details int
			remote  bool
		}{
			"a code": {
				append(grpc, "grpc-status", "5", "grpc-message", "no such wallet"), connect.CodeNotFound,
				"no such wallet",
				0, true,
			},
			"a message that is encoded": {
				append(grpc, "grpc-status", "3", "grpc-message", "gr%C3%BC%C3%9Fe, 100%, %zz"),
				connect.CodeInvalidArgument,
				"grüße, 100%, %zz", 0, true,
			},
			"details": {
				append(grpc, "grpc-status", "5", "grpc-status-details-bin", connect.EncodeBinaryHeader(details)),
				connect.CodeNotFound, "", 1, true,
			},
			"details that are none": {
				append(grpc, "grpc-status", "5", "grpc-status-details-bin", "%"), connect.CodeNotFound, "", 0, true,
			},
			"a code that is none": {append(grpc, "grpc-status", "99"), connect.CodeUnknown, "", 0, true},
			"no code": {
				append(grpc, "grpc-status", "well"), connect.CodeInternal,
				"the upstream ended the call without a status",
				0, false,
			},
			"no status": {
				grpc, connect.CodeInternal, "the upstream ended the call without a status", 0, false,
			},
			"no answer": {
				append(grpc, "grpc-status", "0"), connect.CodeInternal, "the upstream ended the call without an answer",
				0,
				false,
			},
			"a page": {
				[]string{":status", "200", "content-type", "text/html"}, connect.CodeUnknown,
				"the endpoint does not speak gRPC: HTTP status 200 OK", 0, false,
			},
			"a proxy's word": {
				[]string{":status", "503"}, connect.CodeUnavailable,
				"the endpoint does not speak gRPC: HTTP status 503 Service Unavailable", 0, false,
			},
			"another path's": {
				[]string{":status", "404"}, connect.CodeUnimplemented,
				"the endpoint does not speak gRPC: HTTP status 404 Not Found", 0, false,
			},
			"nothing at all": {
				[]string{"content-type", "application/grpc"}, connect.CodeUnknown,
				"the endpoint does not speak gRPC: HTTP status 0 ", 0, false,
			},
		} {
			if config.FastPaths.Upstream.IsPlain() && (row.fields[0] != ":status" || name == "no status" ||
				name == "details that are none") {
				continue // grpc-go has other errors for these
			}
			t.Run(name, func(t *testing.T) {
				for _, kind := range []connect.StreamType{
					connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeServer,
				} {
					if kind == connect.StreamTypeServer && name == "no answer" {
						continue // of a stream of answers that is well
					}
					err := call(
						t, config, kind,
						acting(
							t,
							func(
								framer *http2.Framer, stream uint32,
							) error {
								return fields(framer, stream, true, row.fields...)
							},
						),
					)
					said, ok := errors.AsType[*connect.Error](err)
					if !ok || said.Code() != row.code || said.Message() != row.message ||
						len(said.Details()) != row.details || said.IsRemote() != row.remote {
						t.Errorf("kind %v: %v", kind, err)
					}
				}
			})
		}
	})
}

func TestReceiveOne_ExactlyOneAnswer(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		for _, kind := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient} {
			for answers, want := range map[int]connect.Code{1: 0, 2: connect.CodeInternal} {
				err := call(t, config, kind, acting(t, func(framer *http2.Framer, stream uint32) error {
					return errors.Join(answerHeaders(framer, stream),
						framer.WriteData(stream, false, bytes.Repeat(make([]byte, 5), answers)),
						trailers(framer, stream))
				}))
				if want == 0 && err != nil || want != 0 && connect.CodeOf(err) != want {
					t.Errorf("kind %v, %d answers: %v", kind, answers, err)
				}
			}
		}
	})
}

// call sends a message and receives the answer, which the node may have sent before it has received
// the message: then sending returns io.EOF.
func call(t *testing.T, config PoolConfig, kind connect.StreamType, endpoint string) error {
	t.Helper()
	pool := NewPool(config)
	defer pool.Close()
	stream, err := contextkit.NewClient(NewTransport(pool)).CallClientStream(
		WithEndpoint(contextkit.PlatformContext(t.Context()), endpoint),
		connect.Spec{Procedure: "/any.Service/Call", StreamType: kind},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }() // its error is Receive's
	if err := errors.Join(stream.Send(&emptypb.Empty{}), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return stream.Receive(&emptypb.Empty{})
}
