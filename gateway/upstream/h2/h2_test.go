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

func TestPeer_FailuresMapToErrors(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		plainly := isPlain(t, to)
		refused := func(err error) bool {
			broken, ok := errors.AsType[*channels.BrokenError](err)
			return ok && broken.Refused
		}
		brokenOff := func(err error) bool {
			broken, ok := errors.AsType[*channels.BrokenError](err)
			return ok && !broken.Refused && !broken.Unreached
		}
		because := func(cause error) func(error) bool {
			return func(err error) bool { return brokenOff(err) && errors.Is(err, cause) }
		}
		for name, row := range map[string]struct {
			does func(p *peer, stream uint32) error
			want func(error) bool
		}{
			"it refuses the stream": {
				func(p *peer, stream uint32) error { return p.WriteRSTStream(stream, http2.ErrCodeRefusedStream) },
				refused,
			},
			"it leaves before it": {
				func(p *peer, _ uint32) error { return p.WriteGoAway(0, http2.ErrCodeNo, nil) }, refused,
			},
			"it resets the stream": {
				func(p *peer, stream uint32) error { return p.WriteRSTStream(stream, http2.ErrCodeInternal) },
				brokenOff,
			},
			"it closes the connection": {func(p *peer, _ uint32) error {
				tcp, _ := p.Conn.(*net.TCPConn)
				return tcp.CloseWrite()
			}, func(err error) bool {
				return brokenOff(err) && !errors.Is(err, io.EOF)
			}},
			"it ends without trailers": {func(p *peer, stream uint32) error {
				return errors.Join(p.begin(stream), p.WriteData(stream, true, framed("yes")))
			}, because(errNoStatus)},
			"it ends within a message": {func(p *peer, stream uint32) error {
				return errors.Join(p.begin(stream), p.WriteData(stream, false, framed("yes")[:6]), p.end(stream))
			}, because(io.ErrUnexpectedEOF)},
			"it sends data first": {
				func(p *peer, stream uint32) error { return p.WriteData(stream, false, framed("yes")) }, brokenOff,
			},
			"it sends headers thrice": {func(p *peer, stream uint32) error {
				return errors.Join(p.begin(stream), p.begin(stream))
			}, brokenOff},
			"it compresses": {func(p *peer, stream uint32) error {
				return errors.Join(p.begin(stream), p.WriteData(stream, false, []byte{1, 0, 0, 0, 1, 0}))
			}, because(channels.ErrCompressed)},
			"its message is too large": {func(p *peer, stream uint32) error {
				return errors.Join(p.begin(stream), p.WriteData(stream, false, []byte{0, 0x7f, 0xff, 0xff, 0xff}))
			}, because(channels.ErrTooLarge)},
			"its headers are too large": {func(p *peer, stream uint32) error {
				return p.headers(
					stream, false, ":status", "200", "a", strings.Repeat("x", channels.MaxHeaderBytes/2), "b",
					strings.Repeat("y", channels.MaxHeaderBytes/2),
				)
			}, because(channels.ErrTooLarge)},
			"its headers do not end": {func(p *peer, stream uint32) error {
				err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: nil})
				for err == nil {
					err = p.WriteContinuation(stream, false, make([]byte, firstFrame))
				}
				return nil // the client has left
			}, brokenOff},
			"it sends more than it may": {func(p *peer, stream uint32) error {
				err := errors.Join(p.begin(stream), p.WriteData(stream, false, framed("received next")))
				for rest := framed(strings.Repeat("x", 100<<10)); err == nil &&
					len(rest) > 0; rest = rest[min(len(rest), firstFrame):] {
					err = p.WriteData(stream, false, rest[:min(len(rest), firstFrame)])
				}
				reset, failed := frame[*http2.RSTStreamFrame](p)
				if failed == nil && reset.ErrCode != http2.ErrCodeFlowControl {
					failed = fmt.Errorf("the stream is reset for %v", reset.ErrCode)
				}
				return errors.Join(err, failed)
			}, brokenOff},
			"it sends answers without a request": {func(p *peer, _ uint32) error {
				return errors.Join(p.begin(99), p.accused(http2.ErrCodeProtocol))
			}, brokenOff},
			"its headers are no headers": {func(p *peer, stream uint32) error {
				block := http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true}
				return errors.Join(p.WriteHeaders(block), p.accused(http2.ErrCodeCompression))
			}, brokenOff},
			"it pushes": {func(p *peer, stream uint32) error {
				push := http2.PushPromiseParam{StreamID: stream, PromiseID: 2, EndHeaders: true}
				return errors.Join(p.WritePushPromise(push), p.accused(http2.ErrCodeProtocol))
			}, brokenOff},
			"it grants too much": {func(p *peer, _ uint32) error {
				return errors.Join(p.WriteWindowUpdate(0, math.MaxInt32), p.accused(http2.ErrCodeFlowControl))
			}, brokenOff},
			"it grants a stream too much": {
				func(p *peer, stream uint32) error { return p.WriteWindowUpdate(stream, math.MaxInt32) }, brokenOff,
			},
			"its settings are wrong": {func(p *peer, _ uint32) error {
				return errors.Join(p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}),
					p.accused(http2.ErrCodeProtocol))
			}, brokenOff},
		} {
			if only := []string{
				"it resets the stream", "it closes the connection", "it ends without trailers",
				"it ends within a message",
				"it compresses", "its message is too large", "its headers are too large",
			}; plainly && !slices.Contains(only, name) {
				continue // the others are the wire format of the own client
			}
			t.Run(name, func(t *testing.T) {
				done := make(chan struct{})
				channel := to(t, script(t, nil, func(p *peer) error {
					stream, _, err := p.call()
					if err == nil {
						err = row.does(p, stream)
					}
					close(done)
					return errors.Join(err, p.left())
				}), config())
				want := row.want
				if plainly && name == "it ends without trailers" {
					want = brokenOff // with a text of grpc-go's
				}
				if _, _, err := ask(t.Context(), channel, "?"); !want(err) {
					t.Errorf("the call ends with %v", err)
				}
				<-done
			})
		}
	})
}

func TestPeer_OtherFramesAreAccepted(t *testing.T) {
	done := make(chan struct{})
	channel := channelTo(t, script(t, []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: 0}}, func(p *peer) error {
		defer close(done)
		p.decoder.SetAllowedMaxDynamicTableSize(0)
		for range 3 {
			stream, _, err := p.call()
			if err != nil {
				return err
			}
			if err := errors.Join(
				p.WritePing(false, [8]byte{1, 2, 3}),
				p.WriteRawFrame(0xee, 0, 0, []byte("of a kind to come")),
				p.WritePriority(stream, http2.PriorityParam{Weight: 1}),
				p.headers(stream, false, ":status", "103", "link", "</style.css>"), // before the answer
				p.begin(stream),
				p.WriteDataPadded(stream, false, framed("yes"), make([]byte, 100)),
				p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}),
				p.end(stream),
				p.WriteRSTStream(stream, http2.ErrCodeNo),
				p.WriteWindowUpdate(stream, 1),
			); err != nil {
				return err
			}
			for {
				ping, err := frame[*http2.PingFrame](p)
				if err != nil {
					return err
				}
				if ping.IsAck() && ping.Data == [8]byte{1, 2, 3} {
					break
				}
			}
		}
		return nil
	}), config())
	for range 3 {
		got, stream, err := ask(t.Context(), channel, "?")
		if err != nil || got != "yes" {
			t.Fatal(got, err)
		}
		if header := stream.Header(); len(header) != 2 || header[0].Value != "200" {
			t.Errorf("the answer's headers are %v", header)
		}
	}
	<-done
}

func TestStream_TrailersOnlyAnswerHasNoHeaders(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, script(t, nil, func(p *peer) error {
			stream, _, err := p.call()
			if err != nil {
				return err
			}
			return errors.Join(
				p.headers(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5"),
				p.left(),
			)
		}), config())
		_, stream, err := ask(t.Context(), channel, "?")
		if !errors.Is(err, io.EOF) || len(stream.Header()) != 0 || len(stream.Trailer()) != 3 {
			t.Errorf("%v, headers %v, trailers %v", err, stream.Header(), stream.Trailer())
		}
		channel.Close()
	})
}

func TestGoAway_PeerCompletesItsStreams(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, script(t, nil, func(p *peer) error {
			stream, _, err := p.call()
			if err != nil {
				return err
			}
			return errors.Join(p.WriteGoAway(stream, http2.ErrCodeNo, nil), p.answer(stream, "the last"), p.left())
		}, func(p *peer) error {
			stream, _, err := p.call()
			if err != nil {
				return err
			}
			return errors.Join(p.answer(stream, "the first"), p.left())
		}), config())
		for _, want := range []string{"the last", "the first"} { // on another connection
			if got, _, err := ask(t.Context(), channel, "?"); got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
		channel.Close()
	})
}

func TestGoAway_TooManyPingsSlowsPings(t *testing.T) {
	channel := channelTo(t, script(t, nil, func(p *peer) error {
		if _, _, err := p.call(); err != nil {
			return err
		}
		return errors.Join(p.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(tooManyPings)), p.left())
	}), config())
	_, _, err := ask(t.Context(), channel, "?")
	if broken, ok := errors.AsType[*channels.BrokenError](err); !ok || !broken.Refused {
		t.Errorf("%v", err)
	}
	channel.mu.Lock()
	defer channel.mu.Unlock()
	if channel.pingAfter != 2*channel.config.PingAfter {
		t.Errorf("the next connection is asked after %v", channel.pingAfter)
	}
}

func TestChannel_CallsWaitForFreeStream(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		first, second := make(chan uint32, 1), make(chan uint32, 1)
		answer := make(chan struct{})
		channel := to(
			t, script(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, func(p *peer) error {
				stream, _, err := p.call()
				if err != nil {
					return err
				}
				first <- stream
				<-answer
				if err := p.answer(stream, "one"); err != nil {
					return err
				}
				if stream, _, err = p.call(); err != nil {
					return err
				}
				second <- stream
				return errors.Join(p.answer(stream, "two"), p.left())
			}), config(),
		)
		var group sync.WaitGroup
		defer group.Wait()
		group.Go(func() {
			if got, _, err := ask(t.Context(), channel, "?"); got != "one" {
				t.Error(got, err)
			}
		})
		<-first
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := ask(hasty, channel, "?"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a place and without time: %v", err)
		}
		group.Go(func() {
			if got, _, err := ask(t.Context(), channel, "?"); got != "two" {
				t.Error(got, err)
			}
		})
		close(answer)
		<-second
		group.Wait()
		channel.Close()
	})
}

func TestStream_CanceledCallIsReset(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		began := make(chan struct{})
		codes := make(chan http2.ErrCode, 1)
		channel := to(t, script(t, nil, func(p *peer) error {
			if _, _, err := p.call(); err != nil {
				return err
			}
			close(began)
			reset, err := frame[*http2.RSTStreamFrame](p)
			if err != nil {
				return err
			}
			codes <- reset.ErrCode
			return p.left()
		}), config())
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-began
			cancel()
		}()
		if _, _, err := ask(ctx, channel, "?"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if code := <-codes; code != http2.ErrCodeCancel {
			t.Errorf("the peer hears %v", code)
		}
		channel.Close()
	})
}

func TestStream_QueuedMessageEndsWithItsCall(t *testing.T) {
	channel := channelTo(t, script(t, nil, func(p *peer) error {
		stream, _, err := p.call()
		if err != nil {
			return err
		}
		return errors.Join(
			p.headers(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "8"), p.left(),
		)
	}), config())
	stream := open(t, channel)
	// The peer permits 64 KiB, and has sent its trailers.
	if err := stream.Send(t.Context(), make([]byte, 1<<20), false); !errors.Is(err, io.EOF) {
		t.Errorf("to send ends with %v", err)
	}
	if _, err := stream.Receive(t.Context()); !errors.Is(err, io.EOF) || len(stream.Trailer()) != 3 {
		t.Errorf("%v, %v", err, stream.Trailer())
	}
	channel.Close()
}

func TestChannel_UnreachablePeerIsUnreached(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		short := config()
		short.ConnectTimeout = 50 * time.Millisecond
		short.FirstBackoff, short.MaxBackoff = time.Hour, time.Hour
		if isPlain(t, to) { // grpc-go takes at least the backoff for an attempt
			short.FirstBackoff, short.MaxBackoff = short.ConnectTimeout, short.ConnectTimeout
		}
		for name, address := range map[string]string{
			"closed port": closed.Addr().String(), "silent peer": silent.Addr().String(),
		} {
			channel := to(t, address, short)
			for range 2 { // the second fails immediately, with the first one's error
				_, _, err := ask(t.Context(), channel, "?")
				if broken, ok := errors.AsType[*channels.BrokenError](err); !ok || !broken.Unreached {
					t.Errorf("%s: %v", name, err)
				}
			}
			channel.Close()
			if _, _, err := ask(t.Context(), channel, "?"); !errors.Is(err, channels.ErrClosed) {
				t.Errorf("%s: a closed channel is called: %v", name, err)
			}
		}
	})
}

func TestPing_IdlePeerIsPinged(t *testing.T) {
	pinged := make(chan struct{})
	short := config()
	short.PingAfter, short.PingTimeout = 10*time.Millisecond, 10*time.Millisecond
	channel := channelTo(t, script(t, nil, func(p *peer) error {
		if _, _, err := p.call(); err != nil {
			return err
		}
		if _, err := frame[*http2.PingFrame](p); err != nil {
			return err
		}
		close(pinged)
		return p.left()
	}), short)
	_, _, err := ask(t.Context(), channel, "?")
	if broken, ok := errors.AsType[*channels.BrokenError](err); !ok || broken.Refused {
		t.Errorf("%v", err)
	}
	<-pinged
	channel.Close()
}

func TestChannel_CloseEndsCalls(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		began := make(chan struct{})
		channel := to(t, script(t, nil, func(p *peer) error {
			if _, _, err := p.call(); err != nil {
				return err
			}
			close(began)
			return p.left()
		}), config())
		go func() {
			<-began
			channel.Close()
		}()
		if _, _, err := ask(t.Context(), channel, "?"); !errors.Is(err, channels.ErrClosed) {
			t.Errorf("%v", err)
		}
		<-began
	})
}

func TestChannel_ExhaustedStreamIDsReconnect(t *testing.T) {
	channel := channelTo(t, echo(t), config())
	if _, _, err := ask(t.Context(), channel, "?"); err != nil {
		t.Fatal(err)
	}
	old := channel.live.Load()
	old.mu.Lock()
	old.nextID = maxStreamID
	old.mu.Unlock()
	for range 3 {
		if got, _, err := ask(t.Context(), channel, "on"); got != "on" {
			t.Fatal(got, err)
		}
	}
	<-old.done
	if channel.live.Load() == old {
		t.Error("the old connection is still used")
	}
}

func TestHeaders_BeyondPeersBoundAreNotSent(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		channel := to(t, echo(t, grpc.MaxHeaderListSize(1000)), config())
		request := channels.Request{
			Path:       "/s/m",
			Fields:     []hpack.HeaderField{{Name: "sent", Value: strings.Repeat("x", 1000)}},
			HasMessage: true,
			Last:       true,
			Whole:      true,
		}
		if _, err := channel.Open(t.Context(), request); !errors.Is(err, channels.ErrHeadersTooLarge) {
			t.Errorf("%v", err)
		}
		if got, _, err := ask(t.Context(), channel, "on"); got != "on" {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}

func TestTLS_PeerIsVerified(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		authority := tlstest.NewAuthority(t)
		files := authority.Issue(t, t.TempDir(), "node")
		report := func(err error) { t.Error(err) }
		material, err := tlsfiles.Open(files, report)
		if err != nil {
			t.Fatal(err)
		}
		strangers, err := tlsfiles.Open(tlstest.NewAuthority(t).Issue(t, t.TempDir(), "node"), report)
		if err != nil {
			t.Fatal(err)
		}
		node := echo(
			t,
			grpc.Creds(
				credentials.NewTLS(
					&tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: material.Server().GetConfigForClient},
				),
			),
		)
		old := tlsServer(
			t,
			&tls.Config{
				MinVersion: tls.VersionTLS12,
				GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					config, err := material.Server().GetConfigForClient(hello)
					if config != nil {
						config = config.Clone()
						config.NextProtos = []string{"http/1.1"}
					}
					return config, err
				},
			},
		)
		for name, row := range map[string]struct {
			address string
			client  func() *tls.Config
			reached bool
		}{
			"a node with a name of ours":        {node, func() *tls.Config { return material.Client("node") }, true},
			"a node with another name":          {node, func() *tls.Config { return material.Client("other") }, false},
			"a node of an authority not ours":   {node, func() *tls.Config { return strangers.Client("node") }, false},
			"a server that speaks HTTP/1 alone": {old, func() *tls.Config { return material.Client("node") }, false},
		} {
			t.Run(name, func(t *testing.T) {
				secured := config()
				secured.TLS = row.client
				got, _, err := ask(t.Context(), to(t, row.address, secured), "who?")
				broken, failed := errors.AsType[*channels.BrokenError](err)
				if reached := err == nil &&
					got == "who?"; reached != row.reached || !reached && (!failed || !broken.Unreached) {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	})
}

// tlsServer only makes TLS handshakes.
func tlsServer(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(conn, config).HandshakeContext(context.Background()) // the client's error is what counts
		_ = conn.Close()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestHeaderBlocks_RoundTrip(t *testing.T) {
	options := config()
	var out outbound
	out.init(&options, "node:1")
	decoder := hpack.NewDecoder(firstTable, nil)
	for round := range 300 {
		phase := round / 20 // within which little changes
		path := fmt.Sprintf("/s/m%d", phase%3+round%2)
		fields := []hpack.HeaderField{
			{Name: "same", Value: "as before"},
			{Name: "now and then", Value: fmt.Sprint(phase)},
			{Name: "each", Value: fmt.Sprint(round)},
		}
		for more := range phase % 5 * 10 {
			fields = append(fields,
				hpack.HeaderField{Name: fmt.Sprint("more-", more, "-", phase), Value: strings.Repeat("v", more)})
		}
		if round%20 == 10 { // smaller and larger
			size := uint32(round * 7 % firstTable)
			out.limit(size)
			decoder.SetAllowedMaxDynamicTableSize(size)
		}
		out.encode(fields, path, time.Duration(round)*time.Second)
		got, err := decoder.DecodeFull(out.block.Bytes())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for i := range got {
			got[i].Sensitive = false
		}
		want := slices.Clone(out.common[:])
		want[pathAt].Value = path
		if round > 0 {
			want = append(
				want,
				hpack.HeaderField{
					Name:  "grpc-timeout",
					Value: string(appendTimeout(nil, time.Duration(round)*time.Second)),
				},
			)
		}
		if want = append(want, fields...); !slices.Equal(got, want) {
			t.Fatalf("round %d: %v, want %v", round, got, want)
		}
	}
}

// FuzzHeaders makes calls with any headers, paths and timeouts, while the peer changes the size of
// its table: each block is decoded to the encoded fields.
func FuzzHeaders(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed, uint8(seed), uint8(seed/4))
	}
	f.Fuzz(func(t *testing.T, seed uint64, paths, names uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		options := config()
		var out outbound
		out.init(&options, "node:1")
		decoder := hpack.NewDecoder(firstTable, nil)
		for call := range 300 {
			if r.IntN(40) == 0 {
				size := []uint32{0, 1, 40, 100, 300, 1000, 4096, 65536}[r.IntN(8)]
				out.limit(size)
				decoder.SetAllowedMaxDynamicTableSize(size)
			}
			path := fmt.Sprintf("/s/%d", r.IntN(2*int(paths)+1))
			var fields []hpack.HeaderField
			for range r.IntN(8) {
				value := strings.Repeat(string(rune('a'+r.IntN(3))), []int{0, 1, 10, 100, 5000}[r.IntN(5)])
				fields = append(fields,
					hpack.HeaderField{Name: fmt.Sprintf("x-%d", r.IntN(int(names)+1)), Value: value})
			}
			remaining := time.Duration(r.IntN(3)) * time.Duration(r.IntN(1e9))
			out.encode(fields, path, remaining)
			got, err := decoder.DecodeFull(out.block.Bytes())
			if err != nil {
				t.Fatalf("call %d: %v", call, err)
			}
			want := slices.Clone(out.common[:])
			want[pathAt].Value = path
			if remaining > 0 {
				want = append(want,
					hpack.HeaderField{Name: "grpc-timeout", Value: string(appendTimeout(nil, remaining))})
			}
			want = append(want, fields...)
			for i := range got {
				got[i].Sensitive = false
			}
			if !slices.Equal(got, want) {
				t.Fatalf("call %d: %v, want %v", call, got, want)
			}
		}
	})
}

// FuzzTimeout formats any duration: at most eight digits and a unit, and at most one unit longer
// than the duration.
func FuzzTimeout(f *testing.F) {
	for _, d := range []int64{
		1, 99_999_999, 100_000_000, 99_999_999_001, math.MaxInt64, int64(2000 * time.Hour),
		int64(100_000_000 * time.Second), int64(99_999_999*time.Minute + 1),
	} {
		f.Add(d)
	}
	units := map[byte]time.Duration{
		'n': 1, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour,
	}
	f.Fuzz(func(t *testing.T, nanoseconds int64) {
		d := time.Duration(nanoseconds)
		if d <= 0 {
			t.Skip("a call with a deadline has time left")
		}
		text := appendTimeout(nil, d)
		number, unit := string(text[:len(text)-1]), units[text[len(text)-1]]
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(number) > 8 || unit == 0 {
			t.Fatalf("%d is %s", d, text)
		}
		// Hours are rounded down: rounding up could exceed eight digits.
		if over := time.Duration(n)*unit - d; over >= unit || over < 0 && unit != time.Hour || over <= -time.Hour {
			t.Errorf("%d is %s, which is %v longer", d, text, over)
		}
	})
}

// FuzzPeer makes a peer send any bytes: a call must end, and stay within its memory.
func FuzzPeer(f *testing.F) {
	record := func(says func(*peer) error) []byte {
		var out bytes.Buffer
		p := &peer{Framer: http2.NewFramer(&out, nil)}
		p.encoder = hpack.NewEncoder(&p.block)
		if err := says(p); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	f.Add(record(func(p *peer) error { return p.answer(1, "yes") }))
	f.Add(record(func(p *peer) error {
		return errors.Join(p.begin(1), p.WriteDataPadded(1, false, framed("yes"), make([]byte, 9)),
			p.WritePing(false, [8]byte{}), p.end(1))
	}))
	f.Add(record(func(p *peer) error {
		return errors.Join(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}),
			p.WriteGoAway(1, 0, nil), p.WriteRSTStream(1, 7))
	}))
	f.Fuzz(func(t *testing.T, says []byte) {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		done := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				done <- err
				return
			}
			done <- errors.Join(act(conn, nil, func(p *peer) error {
				if _, _, err := p.call(); err != nil {
					return err
				}
				_, _ = conn.Write(says) // the client may have left
				return nil
			}), conn.Close())
		}()
		channel := fast{NewChannel(listener.Addr().String(), config())}
		if got, _, err := ask(t.Context(), channel, "?"); err == nil && len(got) > len(says) {
			t.Errorf("%d bytes make a message of %d", len(says), len(got))
		}
		channel.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
