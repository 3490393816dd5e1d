package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// echo is a grpc-go server that echoes each message, and reports in its headers what it received.
func echo(t *testing.T, options ...grpc.ServerOption) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		append(
			options, grpc.ForceServerCodecV2(asIs{}), grpc.MaxRecvMsgSize(16<<20),
			grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				md, _ := metadata.FromIncomingContext(stream.Context())
				if err := stream.SetHeader(metadata.MD{"got": md.Get("sent")}); err != nil {
					return err
				}
				for {
					var message []byte
					if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
						return nil
					} else if err != nil {
						return err
					}
					if err := stream.SendMsg(&message); err != nil {
						return err
					}
				}
			}),
		)...,
	)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String()
}

// asIs is a codec of bytes.
type asIs struct{}

var _ encoding.CodecV2 = asIs{}

func (asIs) Name() string { return "proto" }

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	message, _ := v.(*[]byte)
	return mem.BufferSlice{mem.SliceBuffer(*message)}, nil
}

func (asIs) Unmarshal(data mem.BufferSlice, v any) error {
	message, _ := v.(*[]byte)
	*message = data.Materialize()
	return nil
}

// channelTo returns a channel that ends with the test.
func channelTo(t *testing.T, address string, config channels.Config) fast {
	t.Helper()
	channel := NewChannel(address, config)
	t.Cleanup(channel.Close)
	return fast{channel}
}

func TestStream_MessagesOfAllSizesRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	eachClient(t, func(t *testing.T, to connecting) {
		// The peer's windows are small: sending has to wait for them.
		address := echo(t, grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10))
		channel := to(t, address, config())
		for _, size := range []int{
			0, 1, firstFrame - prefixBytes, firstFrame, 64 << 10, 64<<10 + 1, firstAllocation, firstAllocation + 1,
			3 << 20,
		} {
			message := strings.Repeat("x", max(size-1, 0)) + strings.Repeat("y", min(size, 1))
			got, stream, err := ask(t.Context(), channel, message)
			if err != nil || got != message {
				t.Errorf("%d bytes come back as %d, %v", size, len(got), err)
			}
			if stream != nil &&
				(len(stream.Header()) == 0 ||
					stream.Trailer()[0] != (hpack.HeaderField{Name: "grpc-status", Value: "0"})) {
				t.Errorf("%d bytes: headers %v, trailers %v", size, stream.Header(), stream.Trailer())
			}
		}
		var group sync.WaitGroup
		for caller := range 32 {
			group.Go(func() {
				for i := range 50 {
					message := fmt.Sprint(caller, " ", strings.Repeat("z", i*i*20))
					if got, _, err := ask(t.Context(), channel, message); err != nil || got != message {
						t.Errorf("caller %d: %d bytes come back as %d, %v", caller, len(message), len(got), err)
						return
					}
				}
			})
		}
		group.Wait()
	})
}

func TestStream_BackpressureInBothDirections(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, echo(t), config())
		stream := open(t, channel)
		const messages, size = 200, 10_000 // much more than the windows, and the receiver does not read at first
		sent := make(chan error, 1)
		go func() {
			for i := range messages {
				if err := stream.Send(t.Context(), bytes.Repeat([]byte{byte(i)}, size), false); err != nil {
					sent <- err
					return
				}
			}
			stream.CloseSend()
			sent <- nil
		}()
		// The stream that waits for its reader does not block other streams.
		if got, _, err := ask(t.Context(), channel, "beside"); got != "beside" {
			t.Fatal(got, err)
		}
		for i := range messages {
			buffer, err := stream.Receive(t.Context())
			if err != nil || !bytes.Equal(buffer.ReadOnlyData(), bytes.Repeat([]byte{byte(i)}, size)) {
				t.Fatalf("message %d is another, %v", i, err)
			}
			buffer.Free()
		}
		if _, err := stream.Receive(t.Context()); err != io.EOF { //nolint:errorlint // it is that itself
			t.Errorf("after the last: %v", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if err := stream.Send(t.Context(), nil, true); !errors.Is(err, io.EOF) {
			t.Errorf("to send after the end: %v", err)
		}
	})
}

func TestHeaders_ArriveUnchanged(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, echo(t), config())
		long := strings.Repeat("v", 3*firstFrame) // takes a CONTINUATION
		for _, value := range []string{"a", "b", "b", "b", "a", "", "with spaces and ~", long, "a"} {
			stream, err := channel.Open(t.Context(), channels.Request{
				Path:       "/s/m",
				Fields:     []hpack.HeaderField{{Name: "sent", Value: value}},
				Last:       true,
				HasMessage: true,
				Whole:      true,
			})
			if err != nil {
				t.Fatal(err)
			}
			buffer, err := stream.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			buffer.Free()
			for _, field := range stream.Header() {
				if field.Name == "got" && field.Value != value {
					t.Errorf("of %d bytes %d arrive", len(value), len(field.Value))
				}
			}
			stream.Close()
		}
	})
}

func TestHeaders_RequestHasGRPCFields(t *testing.T) {
	fields := make(chan map[string]string, 2)
	channel := channelTo(t, script(t, nil, func(p *peer) error {
		for range 2 {
			stream, got, err := p.call()
			if err != nil {
				return err
			}
			fields <- got
			if err := p.answer(stream, "yes"); err != nil {
				return err
			}
		}
		return p.left()
	}), config())
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if got, _, err := ask(ctx, channel, "?"); got != "yes" {
		t.Fatal(got, err)
	}
	got := <-fields
	for name, want := range map[string]string{
		":method": "POST", ":scheme": "http", ":path": "/any.Service/Call", ":authority": channel.address,
		"content-type": "application/grpc+proto", "te": "trailers", "user-agent": "test",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if timeout := got["grpc-timeout"]; !strings.HasSuffix(timeout, "m") || len(timeout) > maxTimeout {
		t.Errorf("an hour is %q", timeout)
	}
	if _, _, err := ask(t.Context(), channel, "?"); err != nil {
		t.Fatal(err)
	}
	if timeout, there := (<-fields)["grpc-timeout"]; there {
		t.Errorf("a call without a deadline has one: %q", timeout)
	}
}

func TestAppendTimeout_RoundsUpToEightDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1: "1n", 99_999_999: "99999999n", 100_000_000: "100000u", 100_000_001: "100001u", time.Minute: "60000000u",
		100 * time.Second: "100000m",
		28 * time.Hour:    "100800S", 1200 * 24 * time.Hour: "1728000M", math.MaxInt64: "2562047H",
		30 * 24 * time.Hour: "2592000S", 27*time.Hour + 1: "97200001m",
	} {
		if got := string(appendTimeout(nil, d)); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
