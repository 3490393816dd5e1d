package rpc_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// withUnknown is a message that is written as these bytes.
func withUnknown(wire []byte) *emptypb.Empty {
	message := &emptypb.Empty{}
	message.ProtoReflect().SetUnknown(wire)
	return message
}

// unchecked is a codec that writes messages without the checks of the client's own.
type unchecked struct{ encoding.CodecV2 }

func (unchecked) Marshal(msg any) (mem.BufferSlice, error) {
	message, _ := msg.(*emptypb.Empty)
	return mem.BufferSlice{mem.SliceBuffer(message.ProtoReflect().GetUnknown())}, nil
}

func TestService_ARequestThatCannotBeDecodedIsInvalidArgument(t *testing.T) {
	p := start(t)
	main, alone := p.server.URL(), "http://"+p.server.GRPCAddr()
	clients := map[string]*connect.Client{
		"connect":    contextkit.NewClient(connecthttp.NewTransport(p.plain, main)),
		"grpc":       contextkit.NewClient(connecthttp.NewTransport(p.h2c, main, connecthttp.WithGRPC())),
		"grpcweb":    contextkit.NewClient(connecthttp.NewTransport(p.plain, main, connecthttp.WithGRPCWeb())),
		"grpc alone": contextkit.NewClient(connecthttp.NewTransport(p.h2c, alone, connecthttp.WithGRPC())),
		"in process": contextkit.NewClient(p.server.InProcess(unchecked{encoding.GetCodecV2(connect.CodecNameProto)})),
	}
	for name, client := range clients {
		for what, wire := range map[string][]byte{
			"string that is not UTF-8": []byte("\x0a\x02\xc3\x28"),
			"field number 2^29":        []byte("\x80\x80\x80\x80\x10\x01"), "truncated value": []byte("\x0a\x05a"),
		} {
			ctx := contextkit.PlatformContext(t.Context())
			err := client.CallUnary(ctx, connect.Spec{Procedure: gatewayv1connect.QueryServiceListViewsProcedure},
				withUnknown(wire), &emptypb.Empty{})
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%s, unary, %s: %v", name, what, err)
			}
			stream, err := client.CallServerStream(
				ctx,
				connect.Spec{
					Procedure:  gatewayv1connect.QueryServiceWatchProcedure,
					StreamType: connect.StreamTypeServer,
				},
				withUnknown(wire),
			)
			if err == nil {
				err = stream.Receive(&emptypb.Empty{})
				_ = stream.Close()
			}
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%s, stream, %s: %v", name, what, err)
			}
		}
	}
}

// TestService_AMessageThatCannotBeDecompressedIsInvalidArgument sends gRPC messages by hand.
func TestService_AMessageThatCannotBeDecompressedIsInvalidArgument(t *testing.T) {
	p := start(t)
	for name, url := range map[string]string{"main": p.server.URL(), "alone": "http://" + p.server.GRPCAddr()} {
		for encoding, flag := range map[string]byte{"gzip": 1, "identity": 1, "": 1} {
			body := append([]byte{flag, 0, 0, 0, 4}, "junk"...)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
				url+gatewayv1connect.QueryServiceListViewsProcedure, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			if encoding != "" {
				req.Header.Set("Grpc-Encoding", encoding)
			}
			if err := contextkit.Inject(contextkit.PlatformContext(t.Context()), req.Header); err != nil {
				t.Fatal(err)
			}
			res, err := p.h2c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			status := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status")
			if status != "3" {
				t.Errorf("%s, grpc-encoding %q: status %s, %q %q", name, encoding, status,
					res.Trailer.Get("Grpc-Message"), res.Header.Get("Grpc-Message"))
			}
		}
	}
}

// TestService_AMalformedBodyIsInvalidArgument: the encodings around a message (HTTP's chunks, base64 in a
// query) are the client's too.
func TestService_AMalformedBodyIsInvalidArgument(t *testing.T) {
	p := start(t)
	host := strings.TrimPrefix(p.server.URL(), "http://")
	const procedure = gatewayv1connect.QueryServiceListViewsProcedure
	for name, request := range map[string]string{
		"base64": "GET " + procedure +
			"?connect=v1&encoding=proto&base64=1&message=!!! HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: acme\r\n\r\n",
		"the size of chunks": "POST " + procedure +
			" HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: acme\r\nContent-Type: application/json\r\nTransfer-Encoding: " +
			"chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
		"end of a chunk": "POST " + procedure +
			" HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: acme\r\nContent-Type: application/proto\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
	} {
		var dialer net.Dialer
		conn, err := dialer.DialContext(t.Context(), "tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, _ := io.ReadAll(res.Body)
		if res.Body.Close(); res.StatusCode != http.StatusBadRequest ||
			!strings.Contains(string(text), "the message cannot be decoded") {
			t.Errorf("%s: %d %s", name, res.StatusCode, text)
		}
	}
}
