package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/gateway/frame"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc/compression"
)

// rawClient returns a client of the protocol whose messages are frames: bytes that it sends
// unchanged.
func (e *edge) rawClient(protocol string, options ...connecthttp.Option) *connect.Client {
	options = append(options, connecthttp.WithCodecs(frame.ProtoCodec()))
	switch protocol {
	case "connect+proto":
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, options...))
	case "grpcweb":
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, append(options, connecthttp.WithGRPCWeb())...))
	case "grpc":
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, append(options, connecthttp.WithGRPC())...))
	default:
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.grpc, append(options, connecthttp.WithGRPC())...))
	}
}

var rawProtocols = []string{"connect+proto", "grpc", "native grpc", "grpcweb"}

// bomb is a compressor with constant, highly compressed output.
type bomb struct {
	name   string
	packed []byte
}

func (b bomb) Name() string { return b.name }

func (b bomb) Compress(dst io.Writer) (io.WriteCloser, error) { return bombWriter{b, dst}, nil }

func (b bomb) Decompress(io.Reader) (io.ReadCloser, error) { return nil, errors.New("not accepted") }

type bombWriter struct {
	bomb

	dst io.Writer
}

func (w bombWriter) Write(p []byte) (int, error) { return len(p), nil }

func (w bombWriter) Close() error {
	_, err := w.dst.Write(w.packed)
	return err
}

// bombs are compressed messages that announce or contain more than the permitted size.
func bombs(t *testing.T) []bomb {
	t.Helper()
	list := []bomb{
		{
			"zstd", []byte("\x28\xb5\x2f\xfd\xc0\x68\x00\x00\x00\x00\x0f\x00\x00\x00\x03\x00\x10\x00"),
		}, // a frame of 60 GiB
		{"zstd", []byte("not zstd")}, {"gzip", []byte("not gzip")}, {"br", []byte("\xff not br")},
	}
	for _, c := range compression.All() {
		var packed bytes.Buffer
		w, err := c.Compress(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 64<<20)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		list = append(list, bomb{c.Name(), packed.Bytes()})
	}
	return list
}

// grown bounds the bytes that the test's process, including the gateway, may allocate for a few
// calls: much less than the bombs contain.
const grown = 60 << 20

func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// refusesBomb checks the code of a compressed message that is too large or malformed.
func refusesBomb(t *testing.T, b bomb, err error) {
	t.Helper()
	if code := connect.CodeOf(err); err == nil ||
		code != connect.CodeResourceExhausted && code != connect.CodeInvalidArgument {
		t.Errorf("%s of %d bytes: %v", b.name, len(b.packed), err)
	}
}

func TestCompression_BombIsRejectedOverEveryProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("not concurrent, and takes a minute under the race detector")
	}
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register, ticks.set(t))
	token := e.token(t, "acme", "query.read", "tick.read")
	procedures := map[string]connect.StreamType{
		healthv1.Health_Check_FullMethodName:                        connect.StreamTypeUnary, // without a credential
		queriesconnect.QueryServiceQueryProcedure:                   connect.StreamTypeUnary,
		"/test.Ticker/Watch":                                        connect.StreamTypeServer,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": connect.StreamTypeBidi,
	}
	for _, b := range bombs(t) {
		for procedure, kind := range procedures {
			for _, protocol := range rawProtocols {
				t.Run(protocol+procedure+" "+b.name, func(t *testing.T) {
					client := e.rawClient(protocol, connecthttp.WithCompressors(b),
						connecthttp.WithSendCompression(b.name))
					ctx, info := connect.NewClientContext(t.Context())
					info.RequestHeader().Set("Authorization", token)
					message := &frame.Frame{Data: make([]byte, 2048)}
					if n := allocated(func() {
						stream, err := client.CallClientStream(ctx,
							connect.Spec{Procedure: procedure, StreamType: kind})
						if err != nil {
							t.Error(err)
							return
						}
						defer stream.Close()
						_ = stream.Send(message) // its verdict is received
						_ = stream.CloseSend()
						refusesBomb(t, b, stream.Receive(&frame.Frame{}))
					}); n > grown {
						t.Errorf("%s of %d bytes: %d MiB allocated", b.name, len(b.packed), n>>20)
					}
				})
			}
		}
		t.Run("connect+get "+b.name, func(t *testing.T) {
			if len(b.packed) > 16<<10 {
				t.Skip("does not fit into a URL")
			}
			query := url.Values{
				"connect": {"v1"}, "encoding": {"proto"}, "base64": {"1"}, "compression": {b.name},
				"message": {base64.RawURLEncoding.EncodeToString(b.packed)},
			}
			for _, procedure := range []string{
				healthv1.Health_Check_FullMethodName, queriesconnect.QueryServiceQueryProcedure,
			} {
				if n := allocated(func() {
					status, text := e.http(t, http.MethodGet, procedure+"?"+query.Encode(), "", "Authorization", token)
					if status != http.StatusBadRequest && status != http.StatusTooManyRequests {
						t.Errorf("%s of %d bytes: %d %s", b.name, len(b.packed), status, text)
					}
				}); n > grown {
					t.Errorf("%s of %d bytes: %d MiB allocated", b.name, len(b.packed), n>>20)
				}
			}
		})
		t.Run("rest "+b.name, func(t *testing.T) {
			if n := allocated(func() {
				status, text := e.http(t, http.MethodPost, "/v1/query/wallets", string(b.packed), "Authorization",
					token, "Content-Type", "application/json", "Content-Encoding", b.name)
				if status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
					t.Errorf("%s of %d bytes: %d %s", b.name, len(b.packed), status, text)
				}
			}); n > grown {
				t.Errorf("%s of %d bytes: %d MiB allocated", b.name, len(b.packed), n>>20)
			}
		})
	}
	for _, protocol := range protocols {
		e.node.set(nil)
		if got := e.query(
			t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			t.Errorf("after the attack, over %s: %v", protocol, got.err)
		}
	}
}

// malformed are messages that no parser accepts for a type with strings in fields 1 and 2, though
// some have well-formed frames.
func malformed() map[string][]byte {
	tag := func(number uint64, wireType protowire.Type, rest string) []byte {
		return append(protowire.AppendVarint(nil, number<<3|uint64(wireType)), rest...)
	}
	return map[string][]byte{
		"field number 2^29":             tag(1<<29, protowire.VarintType, "\x01"),
		"field number 2^31-1":           tag(1<<31-1, protowire.BytesType, "\x00"),
		"field number 0":                tag(0, protowire.VarintType, "\x01"),
		"string that is not UTF-8":      tag(2, protowire.BytesType, "\x02\xc3\x28"),
		"truncated value":               tag(2, protowire.BytesType, "\x05a"),
		"varint of 11 bytes":            tag(9, protowire.VarintType, strings.Repeat("\xff", 10)+"\x01"),
		"group without an end":          tag(9, protowire.StartGroupType, ""),
		"group end without a start":     tag(9, protowire.EndGroupType, ""),
		"group ended by another number": tag(9, protowire.StartGroupType, "\x54"),
		"unknown wire type":             tag(9, 7, "\x00"),
		"truncated field number":        []byte("\x80"),
		"groups 12,000 deep":            bytes.Repeat(tag(9, protowire.StartGroupType, ""), 12_000),
		"malformed repeated string":     []byte("\x12\x01a\x12\x01\xff"),
	}
}

// malformedQueries are malformed in QueryRequest only: in its messages and its map.
func malformedQueries() map[string][]byte {
	return map[string][]byte{
		"map key that is not UTF-8":   []byte("\x22\x03\x0a\x01\xff"),
		"map value that is not UTF-8": []byte("\x22\x06\x0a\x01a\x12\x01\xff"),
		"truncated map entry":         []byte("\x22\x02\x0a\x05"),
		"truncated nested message":    []byte("\x1a\x02\x0a\x05"),
		"malformed nested message": append(protowire.AppendVarint([]byte("\x1a\x06"), 1<<32),
			1), // a field number of 2^29
	}
}

func TestMalformedProtobuf_IsInvalidArgument(t *testing.T) {
	if testing.Short() {
		t.Skip("one client makes many calls; other tests cover this under the race detector")
	}
	everyUpstream(t, func(t *testing.T, start starter) {
		ticks, r := newTicker(t), newRoom(t)
		e := start(nil, func(s *connect.Server) { ticks.register(s); r.register(s) }, ticks.set(t), r.set)
		token := e.token(t, "acme", "query.read", "tick.read", "room.talk")
		e.node.set(nil)
		send := func(t *testing.T, protocol, procedure string, kind connect.StreamType, before int, wire []byte) error {
			t.Helper()
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Authorization", token)
			stream, err := e.rawClient(protocol).CallClientStream(ctx,
				connect.Spec{Procedure: procedure, StreamType: kind})
			if err != nil {
				return err
			}
			defer stream.Close()
			good, err := proto.Marshal(r.note("acme", "hall", "hello"))
			if err != nil {
				t.Fatal(err)
			}
			for range before {
				if err := stream.Send(&frame.Frame{Data: good}); err != nil {
					t.Fatal(err)
				}
				if err := stream.Receive(&frame.Frame{}); err != nil {
					t.Fatal(err)
				}
			}
			_ = stream.Send(&frame.Frame{Data: wire}) // its verdict is received
			_ = stream.CloseSend()
			return stream.Receive(&frame.Frame{})
		}
		refused := func(t *testing.T, err error) {
			t.Helper()
			if connect.CodeOf(err) != connect.CodeInvalidArgument ||
				!strings.Contains(err.Error(), "malformed protobuf") {
				t.Errorf("%v", err)
			}
		}
		for _, protocol := range rawProtocols {
			for name, wire := range malformed() {
				t.Run(protocol+", "+name, func(t *testing.T) {
					refused(t,
						send(t, protocol, queriesconnect.QueryServiceQueryProcedure, connect.StreamTypeUnary, 0, wire))
					refused(t, send(t, protocol, "/test.Ticker/Watch", connect.StreamTypeServer, 0, wire))
					refused(t, send(t, protocol, "/test.Room/Talk", connect.StreamTypeBidi, 0, wire))
					if protocol != "grpcweb" && protocol != "connect+proto" {
						refused(t, send(t, protocol, "/test.Room/Talk", connect.StreamTypeBidi, 1, wire))
					}
				})
			}
			for name, wire := range malformedQueries() {
				t.Run(protocol+", "+name, func(t *testing.T) {
					refused(t,
						send(t, protocol, queriesconnect.QueryServiceQueryProcedure, connect.StreamTypeUnary, 0, wire))
				})
			}
		}
		for name, wire := range malformed() {
			if len(wire) > 4096 {
				continue // for a URL
			}
			query := url.Values{
				"connect": {"v1"}, "encoding": {"proto"}, "base64": {"1"},
				"message": {base64.RawURLEncoding.EncodeToString(wire)},
			}
			status, text := e.http(t, http.MethodGet, queriesconnect.QueryServiceQueryProcedure+"?"+query.Encode(), "",
				"Authorization", token)
			if status != http.StatusBadRequest || !strings.Contains(text, "malformed protobuf") {
				t.Errorf("GET, %s: %d %s", name, status, text)
			}
		}
		status, text := e.http(t, http.MethodGet, "/v1/ticks/rooms/hall", "", "Authorization", token, "Last-Event-Id",
			"\xff\xfe")
		if status != http.StatusBadRequest {
			t.Errorf("Last-Event-Id that is not UTF-8: %d %s", status, text)
		}
		if calls, _, _, _, _ := e.node.seen(); calls != 0 {
			t.Errorf("the node received %d calls", calls)
		}
	})
}

// The node answers with bytes that are not a valid message of the type.
func TestMalformedAnswer_IsInternal(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		ticks := newTicker(t)
		e := start(nil, func(s *connect.Server) {
			s.Register(connect.Method{
				Spec: connect.Spec{
					Procedure:  "/test.Ticker/Watch",
					StreamType: connect.StreamTypeServer,
					Schema:     ticks.desc,
				},
				Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
					wrong := &emptypb.Empty{}
					wrong.ProtoReflect().SetUnknown([]byte("\x12\x02\xc3\x28")) // a position that is not UTF-8
					return stream.Send(wrong)
				},
			})
		}, ticks.set(t))
		token := e.token(t, "acme", "tick.read")
		for _, accept := range []string{"text/event-stream", "*/*"} {
			status, text := e.http(t, http.MethodGet, "/v1/ticks/rooms/hall", "", "Authorization", token, "Accept",
				accept)
			if !strings.Contains(text, "internal") ||
				!strings.Contains(text, "not a valid protobuf message of its type") {
				t.Errorf("%s: %d %s", accept, status, text)
			}
		}
		for _, protocol := range []string{"connect+json", "grpc"} {
			client := connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, connecthttp.WithProtoJSON()))
			if protocol == "grpc" {
				client = connect.NewClient(
					connecthttp.NewTransport(e.h2c, e.grpc, connecthttp.WithGRPC(), connecthttp.WithProtoJSON()),
				)
			}
			ctx, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set("Authorization", token)
			stream, err := client.CallServerStream(
				ctx,
				connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: ticks.desc},
				dynamicpb.NewMessage(ticks.desc.Input()),
			)
			if err == nil {
				err = stream.Receive(dynamicpb.NewMessage(ticks.desc.Output()))
				_ = stream.Close()
			}
			if connect.CodeOf(err) != connect.CodeInternal ||
				!strings.Contains(err.Error(), "not a valid protobuf message of its type") {
				t.Errorf("%s: %v", protocol, err)
			}
		}
	})
}
