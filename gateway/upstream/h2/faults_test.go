package h2

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

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
