package h2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config has windows that are small enough to be filled.
func config() channels.Config {
	return channels.Config{
		StreamWindow:    64 << 10,
		ConnWindow:      256 << 10,
		MaxMessageBytes: 4 << 20,
		ConnectTimeout:  5 * time.Second,
		FirstBackoff:    time.Millisecond,
		MaxBackoff:      time.Millisecond,
		PingAfter:       time.Minute,
		PingTimeout:     time.Minute,
		Memory:          mem.DefaultBufferPool(),
		UserAgent:       "test",
	}
}

// peer is the other side of a connection, controlled by a test.
type peer struct {
	*http2.Framer
	net.Conn

	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
}

// script runs a peer that runs play on each connection, after its SETTINGS. Its error fails the
// test, except for a connection that the client has closed.
func script(t *testing.T, settings []http2.Setting, plays ...func(*peer) error) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var all error
		for _, play := range plays {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			all = errors.Join(all, act(conn, settings, play), conn.Close())
		}
		done <- all
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		if err := <-done; err != nil {
			t.Errorf("the peer: %v", err)
		}
	})
	return listener.Addr().String()
}

func act(conn net.Conn, settings []http2.Setting, play func(*peer) error) error {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	p := &peer{Framer: http2.NewFramer(conn, conn), Conn: conn}
	p.encoder = hpack.NewEncoder(&p.block)
	p.decoder = hpack.NewDecoder(firstTable, nil)
	if err := p.WriteSettings(settings...); err != nil {
		return err
	}
	return play(p)
}

// frame returns the next frame that a test expects.
func frame[F http2.Frame](p *peer) (found F, err error) {
	for {
		next, err := p.ReadFrame()
		if err != nil {
			return found, err
		}
		if f, ok := next.(F); ok {
			return f, nil
		}
	}
}

// call returns the next call's stream and header fields.
func (p *peer) call() (stream uint32, fields map[string]string, err error) {
	f, err := frame[*http2.HeadersFrame](p)
	if err != nil {
		return 0, nil, err
	}
	block := bytes.Clone(f.HeaderBlockFragment())
	for ended := f.HeadersEnded(); !ended; {
		more, err := frame[*http2.ContinuationFrame](p)
		if err != nil {
			return 0, nil, err
		}
		block, ended = append(block, more.HeaderBlockFragment()...), more.HeadersEnded()
	}
	list, err := p.decoder.DecodeFull(block)
	fields = map[string]string{}
	for _, field := range list {
		fields[field.Name] = field.Value
	}
	return f.StreamID, fields, err
}

// headers sends a header block, given as names and values in turn.
func (p *peer) headers(stream uint32, last bool, fields ...string) error {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	block := p.block.Bytes()
	n := min(len(block), firstFrame)
	err := p.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      stream,
		BlockFragment: block[:n],
		EndHeaders:    n == len(block),
		EndStream:     last,
	})
	for err == nil && n < len(block) {
		m := min(len(block)-n, firstFrame)
		err = p.WriteContinuation(stream, n+m == len(block), block[n:n+m])
		n += m
	}
	return err
}

// accused waits for the client's GOAWAY, which has the error of the peer.
func (p *peer) accused(want http2.ErrCode) error {
	last, err := frame[*http2.GoAwayFrame](p)
	if err == nil && last.ErrCode != want {
		err = fmt.Errorf("the client leaves for %v, want %v", last.ErrCode, want)
	}
	return err
}

// begin sends an answer's headers.
func (p *peer) begin(stream uint32) error {
	return p.headers(stream, false, ":status", "200", "content-type", "application/grpc")
}

// end sends an answer's trailers.
func (p *peer) end(stream uint32) error { return p.headers(stream, true, "grpc-status", "0") }

// answer sends a complete answer.
func (p *peer) answer(stream uint32, message string) error {
	return errors.Join(p.begin(stream), p.WriteData(stream, false, framed(message)), p.end(stream))
}

// left waits until the client closes the connection.
func (p *peer) left() error {
	for {
		if _, err := p.ReadFrame(); err != nil {
			return nil //nolint:nilerr // that it ends is what is waited for
		}
	}
}

// framed is a message with its prefix.
func framed(message string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// opener is a function that begins calls.
type opener func(ctx context.Context, request channels.Request) (stream, error)

func (o opener) Open(ctx context.Context, request channels.Request) (stream, error) {
	return o(ctx, request)
}

// ask makes a unary call.
func ask(ctx context.Context, channel calling, message string) (string, stream, error) {
	call, err := channel.Open(ctx, channels.Request{
		Path:       "/any.Service/Call",
		Message:    []byte(message),
		HasMessage: true,
		Last:       true,
		Whole:      true,
	})
	if err != nil {
		return "", nil, err
	}
	defer call.Close()
	buffer, err := call.Receive(ctx)
	if err != nil {
		return "", call, err
	}
	defer buffer.Free()
	return string(buffer.ReadOnlyData()), call, nil
}

// open begins a call that streams both ways.
func open(t *testing.T, channel calling) stream {
	t.Helper()
	call, err := channel.Open(t.Context(), channels.Request{Path: "/any.Service/Call"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(call.Close)
	return call
}
