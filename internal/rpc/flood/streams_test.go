package flood_test

import (
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/internal/rpc/flood"
)

// headers write the HEADERS frames of streams.
func headers(streams ...uint32) func(*http2.Framer) error {
	return func(f *http2.Framer) error {
		for _, stream := range streams {
			if err := f.WriteHeaders(
				http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true},
			); err != nil {
				return err
			}
		}
		return nil
	}
}

// answer has the server's side of a connection write frames.
func answer(t *testing.T, conn net.Conn, write func(*http2.Framer) error) {
	t.Helper()
	if err := write(http2.NewFramer(conn, nil)); err != nil {
		t.Fatal(err)
	}
}

// reading returns a connection of the client's that has read the frames, the error of the read
// after the last, and what it is closed for.
func reading(t *testing.T, bound *flood.Streams, write func(*http2.Framer) error) (*flood.Conn, flood.Kind, error) {
	t.Helper()
	var kind flood.Kind
	conn := flood.Server(&chunks{in: frames(t, write), size: 7},
		func(_ net.Conn, k flood.Kind) { kind = k }).Bound(bound)
	_, err := io.Copy(io.Discard, conn)
	return conn, kind, err
}

func TestStreams_AreHeldUntilTheirAnswersHaveBeenSent(t *testing.T) {
	bound := flood.NewStreams(100)
	conn, _, _ := reading(t, bound, func(f *http2.Framer) error {
		if err := headers(1, 3, 5, 7, 9)(f); err != nil {
			return err
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{
			StreamID:      1,
			BlockFragment: []byte{0x82},
			EndHeaders:    true,
			EndStream:     true,
		}); err != nil {
			return err // trailers begin no stream
		}
		return f.WriteRSTStream(9, http2.ErrCodeCancel)
	})
	if open := bound.Open(); open != 4 {
		t.Errorf("%d streams are held, want the 4 that were not reset", open)
	}
	for _, step := range []struct {
		what  string
		write func(*http2.Framer) error
		held  int64
	}{
		{"a message", func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) }, 4},
		{"the last message", func(f *http2.Framer) error { return f.WriteData(1, true, nil) }, 3},
		{"a reset after it", func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeNo) }, 3},
		{"trailers", func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{
				StreamID:      3,
				BlockFragment: []byte{0x88},
				EndHeaders:    true,
				EndStream:     true,
			})
		}, 2},
		{"a reset", func(f *http2.Framer) error { return f.WriteRSTStream(5, http2.ErrCodeInternal) }, 1},
	} {
		answer(t, conn, step.write)
		if open := bound.Open(); open != step.held {
			t.Errorf("after %s %d streams are held, want %d", step.what, open, step.held)
		}
	}
	for range 2 {
		_ = conn.Close()
	}
	if open := bound.Open(); open != 0 {
		t.Errorf("%d streams are held by a closed connection", open)
	}
}

// TestStreams_BeyondTheBoundEndTheConnectionWithMany: of a client's connections the one is
// closed that holds many streams; another user's at the same address stays.
func TestStreams_BeyondTheBoundEndTheConnectionWithMany(t *testing.T) {
	bound := flood.NewStreams(10)
	few, _, err := reading(t, bound, headers(1, 3))
	if err != nil {
		t.Fatal(err)
	}
	many := make([]uint32, 9)
	for n := range many {
		many[n] = uint32(2*n + 1)
	}
	if _, kind, err := reading(t, bound, headers(many...)); err == nil || kind != flood.Headers {
		t.Errorf("beyond the bound: %v, closed for %q", err, kind)
	}
	if open := bound.Open(); open != 2 {
		t.Errorf("%d streams are held, want those of the connection that stays", open)
	}
	answer(t, few, func(f *http2.Framer) error { return f.WriteData(1, true, nil) })
	if open := bound.Open(); open != 1 {
		t.Errorf("%d streams are held", open)
	}
}
