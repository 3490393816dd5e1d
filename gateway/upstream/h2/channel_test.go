package h2

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

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
			t.Errorf("the peer receives %v", code)
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
