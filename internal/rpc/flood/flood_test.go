package flood_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/rpc/flood"
)

// chunks is a connection that reads bytes in pieces of a size, and takes what is written.
type chunks struct {
	net.Conn

	in     []byte
	size   int
	closed bool
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in[:min(c.size, len(c.in))])
	c.in = c.in[n:]
	return n, nil
}

func (c *chunks) Write(p []byte) (int, error) { return len(p), nil }

func (c *chunks) Close() error {
	c.closed = true
	return nil
}

// frames returns HTTP/2's preface with what write writes after it.
func frames(t interface{ Fatal(...any) }, write func(*http2.Framer) error) []byte {
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	framer.AllowIllegalWrites = true
	if err := write(framer); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repeat returns what writes a frame n times.
func repeat(n int, write func(*http2.Framer) error) func(*http2.Framer) error {
	return func(f *http2.Framer) error {
		for range n {
			if err := write(f); err != nil {
				return err
			}
		}
		return nil
	}
}

// outcome is what becomes of a connection.
type outcome struct {
	kind   flood.Kind // "": it was not flooded
	passed int        // bytes that came through
}

func run(in []byte, size int) outcome {
	var got outcome
	inner := &chunks{in: in, size: size}
	conn := flood.Server(inner, func(_ net.Conn, kind flood.Kind) { got.kind = kind })
	n, err := io.Copy(io.Discard, struct{ io.Reader }{conn})
	got.passed = int(n)
	if errors.Is(err, flood.ErrFlood) != (got.kind != "") || inner.closed != (got.kind != "") {
		got.kind = "inconsistent"
	}
	return got
}

func TestConn_AFloodOfAnyKindEndsIt(t *testing.T) {
	open := func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
	}
	empty := func(f *http2.Framer) error { return f.WriteContinuation(1, false, nil) }
	for name, tc := range map[string]struct {
		write func(*http2.Framer) error
		want  flood.Kind
	}{
		"empty CONTINUATION": {
			func(f *http2.Framer) error { return errors.Join(open(f), repeat(200, empty)(f)) }, flood.Continuation,
		},
		"as many as a block may have": {
			func(f *http2.Framer) error { return errors.Join(open(f), repeat(flood.MaxContinuations, empty)(f)) }, "",
		},
		"small CONTINUATION": {func(f *http2.Framer) error {
			return errors.Join(open(f),
				repeat(200, func(f *http2.Framer) error { return f.WriteContinuation(1, false, []byte{0x82}) })(f))
		}, flood.Continuation},
		"blocks of empty CONTINUATION": {
			repeat(200, func(f *http2.Framer) error { return errors.Join(open(f), repeat(100, empty)(f)) }),
			flood.Continuation,
		},
		"empty DATA": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteData(1, false, nil) }), flood.Data,
		},
		"padding alone": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteDataPadded(1, false, nil, make([]byte, 9)) }),
			flood.Data,
		},
		"DATA": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("x")) }), "",
		},
		"ends of streams": {
			repeat(20_000, func(f *http2.Framer) error { return errors.Join(open(f), f.WriteData(1, true, nil)) }), "",
		},
		"PRIORITY": {
			repeat(20_000, func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{Weight: 1}) }),
			flood.Priority,
		},
		"RST_STREAM": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) }),
			flood.Reset,
		},
		"calls that are reset": {
			repeat(20_000,
				func(f *http2.Framer) error { return errors.Join(open(f), f.WriteRSTStream(1, http2.ErrCodeCancel)) }),
			"",
		},
		"SETTINGS": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteSettings() }), flood.Settings,
		},
		"PING": {
			repeat(20_000, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }), flood.Ping,
		},
		"WINDOW_UPDATE": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }), flood.WindowUpdate,
		},
		"unknown frames": {
			repeat(20_000, func(f *http2.Framer) error { return f.WriteRawFrame(0xfa, 0, 0, []byte("x")) }),
			flood.Other,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := frames(t, tc.write)
			for _, size := range []int{1, 7, 9, 4096, 1 << 20} {
				if got := run(bytes.Clone(in), size); got.kind != tc.want || tc.want == "" && got.passed != len(in) {
					t.Errorf("in pieces of %d bytes: %q after %d of %d bytes, want %q", size, got.kind, got.passed,
						len(in), tc.want)
				}
			}
		})
	}
}

// TestConn_WhatIsSentEarnsWhatItProvokes has a client that answers each DATA frame.
func TestConn_WhatIsSentEarnsWhatItProvokes(t *testing.T) {
	in := frames(t, repeat(100_000, func(f *http2.Framer) error {
		return errors.Join(f.WriteWindowUpdate(0, 10), f.WriteWindowUpdate(1, 10), f.WritePing(false, [8]byte{}))
	}))
	data := frames(t,
		func(f *http2.Framer) error { return f.WriteData(1, false, []byte("a tick")) })[len(http2.ClientPreface):]
	inner := &chunks{in: in, size: 2*13 + 17}
	conn := flood.Server(inner, func(_ net.Conn, kind flood.Kind) { t.Errorf("a flood of %s", kind) })
	buffer := make([]byte, 64)
	for {
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buffer); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestConn_OtherProtocolsPass(t *testing.T) {
	for _, in := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "P", "\x16\x03\x01"} {
		body := append([]byte(in), make([]byte, 1<<20)...)
		if got := run(body, 3); got.kind != "" || got.passed != len(body) {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestConn_ReadsAllocateNothing(t *testing.T) {
	in := frames(t, repeat(1000, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 100)) }))
	inner := &chunks{size: 4096}
	conn := flood.Server(inner, func(net.Conn, flood.Kind) {})
	buffer := make([]byte, 4096)
	if n := testing.AllocsPerRun(10, func() {
		for inner.in = in; len(inner.in) > 0; {
			if _, err := conn.Read(buffer); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Write(in); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v objects", n)
	}
}

func TestConn_PiecesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := []byte(http2.ClientPreface)
		for range rapid.IntRange(0, 300).Draw(t, "frames") {
			payload := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "payload")
			in = append(in, 0, 0, byte(len(payload)), rapid.ByteMax(11).Draw(t, "type"), rapid.Byte().Draw(t, "flags"),
				0, 0, 0, 1)
			in = append(in, payload...)
		}
		whole, piecemeal := run(bytes.Clone(in), len(in)+1), run(bytes.Clone(in), rapid.IntRange(1, 40).Draw(t, "size"))
		if whole.kind != piecemeal.kind {
			t.Fatalf("%q whole, %q in pieces", whole.kind, piecemeal.kind)
		}
	})
}

func FuzzConn(f *testing.F) {
	f.Add(frames(f, repeat(200, func(f *http2.Framer) error { return f.WriteContinuation(1, false, nil) })), 3)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if whole, piecemeal := run(bytes.Clone(in), len(in)+
			1), run(bytes.Clone(in), max(1, size&63)); whole.kind != piecemeal.kind || whole.kind == "inconsistent" {
			t.Fatalf("%q whole, %q in pieces", whole.kind, piecemeal.kind)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	in := frames(b, repeat(100, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 60), EndHeaders: true}),
			f.WriteData(1, true, make([]byte, 100)),
		)
	}))
	inner := &chunks{size: 1 << 20}
	conn := flood.Server(inner, func(net.Conn, flood.Kind) {})
	buffer := make([]byte, 1<<20)
	b.ReportAllocs()
	inner.in = in[:len(http2.ClientPreface)]
	if _, err := conn.Read(buffer); err != nil {
		b.Fatal(err)
	}
	in = in[len(http2.ClientPreface):]
	for b.Loop() { // 200 frames
		inner.in = in
		if _, err := conn.Read(buffer); err != nil {
			b.Fatal(err)
		}
	}
}
