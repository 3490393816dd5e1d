// Package flood watches the frames of HTTP/2 connections, and closes a connection whose peer
// sends frames without effect faster than any peer has reason to.
//
// net/http, grpc-go and x/net bound the bytes of header blocks, streams and windows. They do
// not bound frames that change none of these: empty CONTINUATION frames of a header block
// that never ends (RFC 9113 §10.5), empty DATA frames, PING, SETTINGS, PRIORITY,
// WINDOW_UPDATE, RST_STREAM of streams that have ended, and unknown ones. A peer can send
// millions of them per second on one connection. Nor do they bound the streams of a client on
// all of its connections, see [Streams].
//
// A [Conn] also ends streams whose peer does not read, for servers that cannot, see [Conn.Cut].
//
// A [Conn] reads frames in clear text, so it is layered on top of TLS. It parses only their
// headers of nine bytes, and allocates nothing. ADR-0015 has the reasons for the numbers.
package flood

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxContinuations is how many CONTINUATION frames a header block may have. A block of
	// 64 KiB has four if they are full.
	MaxContinuations = 128
	// Credit bounds the burst of frames without effect.
	Credit = 10_000
	// refill is the further frames per second, and earned the further frames for each HEADERS
	// or DATA frame that is sent to the peer and each HEADERS frame of the peer: a peer
	// answers a DATA frame with two WINDOW_UPDATE frames and a PING at most, and ends a call
	// with RST_STREAM.
	refill, earned = 100, 4
)

// ErrFlood is the error of a connection whose peer floods it.
var ErrFlood = errors.New("flood: the peer sends HTTP/2 frames without effect: the connection is closed")

// Kind is the type of a flood's frames.
type Kind string

// Kinds of floods.
const (
	Continuation Kind = "CONTINUATION"
	Headers      Kind = "HEADERS" // of streams beyond the client's bound
	Data         Kind = "DATA"
	Priority     Kind = "PRIORITY"
	Reset        Kind = "RST_STREAM"
	Settings     Kind = "SETTINGS"
	Ping         Kind = "PING"
	WindowUpdate Kind = "WINDOW_UPDATE"
	Other        Kind = "other"
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{Continuation, Headers, Data, Priority, Reset, Settings, Ping, WindowUpdate, Other}
}

// Frame types and flags (RFC 9113 §6).
const (
	typeData, typeHeaders, typePriority, typeReset, typeSettings = 0, 1, 2, 3, 4
	typePing, typeWindowUpdate, typeContinuation                 = 6, 8, 9

	flagEndStream, flagEndHeaders, flagPadded = 0x1, 0x4, 0x8

	frameHeader = 9
)

// preface begins a client's side of a connection (RFC 9113 §3.4).
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// Conn is a connection whose peer's frames are watched. Read fails with [ErrFlood], and the
// connection is closed, when the peer floods it.
type Conn struct {
	net.Conn

	flooded func(net.Conn, Kind)
	writer  io.Writer
	begun   int  // bytes of the preface that have been received
	plain   bool // the peer does not speak HTTP/2, and is not watched
	in      frames
	block   int       // CONTINUATION frames of the current header block
	credit  int       // of frames without effect
	filled  time.Time // when credit was refilled
	failed  bool

	mu      sync.Mutex // of writers, of held and of cuts
	out     frames
	held    held
	cuts    cuts
	cutting atomic.Bool  // there are, or were, cuts
	sent    atomic.Int64 // HEADERS and DATA frames since credit was refilled
}

// Server returns a server's connection, whose peer begins with HTTP/2's preface or speaks
// another protocol. flooded is called once, before the connection is closed.
func Server(c net.Conn, flooded func(net.Conn, Kind)) *Conn {
	return &Conn{
		Conn:    c,
		flooded: flooded,
		writer:  c,
		credit:  Credit,
		filled:  time.Now(),
	}
}

// Client returns a client's connection of HTTP/2. flooded is as for [Server].
func Client(c net.Conn, flooded func(net.Conn, Kind)) *Conn {
	watched := Server(c, flooded)
	watched.begun = len(preface)
	watched.out.skip = len(preface) // it is sent first
	return watched
}

// Through makes the connection write through w, a layer below its own that adds nothing to
// writing. Call it before the first Write.
func (c *Conn) Through(w io.Writer) *Conn {
	c.writer = w
	return c
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	if c.failed {
		return 0, ErrFlood
	}
	for {
		if c.cutting.Load() && len(p) > 0 {
			n, most := c.injected(p)
			if n > 0 {
				return n, nil
			}
			p = p[:most]
		}
		n, err := c.Conn.Read(p)
		if !c.plain && n > 0 {
			if kind, flooded := c.received(p[:n]); flooded {
				c.failed = true
				c.flooded(c.Conn, kind)
				_ = c.Close() // ErrFlood is the more important error
				return 0, ErrFlood
			}
		}
		if n == 0 && c.cutting.Load() && c.woken(err) {
			continue
		}
		return n, err
	}
}

// Write implements [net.Conn]. It uses little of the stack: net/http writes each frame on a
// separate goroutine, whose small stack must not have to grow.
func (c *Conn) Write(p []byte) (int, error) {
	if c.cutting.Load() {
		p = c.calmed(p)
	}
	n, err := c.writer.Write(p)
	c.written(p[:n])
	return n, err
}

// written counts the frames in bytes that have been sent.
//
//go:noinline
func (c *Conn) written(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := int64(0)
	for {
		frame, flags, _, rest, ok := c.out.next(p)
		if !ok {
			break
		}
		if frame == typeData || frame == typeHeaders {
			sent++
		}
		if frame == typeReset || (frame == typeData || frame == typeHeaders) && flags&flagEndStream != 0 {
			c.held.end(c.out.stream())
			delete(c.cuts.open, c.out.stream())
		}
		p = rest
	}
	if sent > 0 {
		c.sent.Add(sent)
	}
}

// Close implements [io.Closer].
func (c *Conn) Close() error {
	c.mu.Lock()
	c.held.close()
	c.mu.Unlock()
	return c.Conn.Close()
}

// received counts the frames in bytes of the peer, and reports a flood.
func (c *Conn) received(p []byte) (kind Kind, flooded bool) {
	if c.begun < len(preface) {
		n := min(len(p), len(preface)-c.begun)
		if !bytes.Equal(p[:n], preface[c.begun:c.begun+n]) {
			c.plain = true
			return "", false
		}
		c.begun += n
		p = p[n:]
	}
	for {
		frame, flags, length, rest, ok := c.in.next(p)
		if !ok {
			return "", false
		}
		p = rest
		if kind := c.judge(frame, flags, length); kind != "" {
			return kind, true
		}
	}
}

// judge counts a frame, and returns its kind if the credit is used up, else "".
func (c *Conn) judge(frame, flags byte, length int) Kind {
	kind := Other
	switch frame {
	case typeHeaders:
		c.block = 0
		c.earn(1)
		if c.begins() {
			return Headers
		}
		return ""
	case typeContinuation:
		if c.block++; c.block > MaxContinuations {
			return Continuation
		}
		if length > 0 || flags&flagEndHeaders != 0 {
			return ""
		}
		kind = Continuation
	case typeData:
		if flags&flagEndStream != 0 || length > 0 && flags&flagPadded == 0 {
			return ""
		}
		kind = Data
	case typePriority:
		kind = Priority
	case typeReset:
		kind = Reset
		c.ends()
	case typeSettings:
		kind = Settings
	case typePing:
		kind = Ping
	case typeWindowUpdate:
		kind = WindowUpdate
	}
	if c.credit--; c.credit > 0 {
		return ""
	}
	c.earn(c.sent.Swap(0))
	now := time.Now()
	c.credit = min(Credit, c.credit+int(min(now.Sub(c.filled).Seconds()*refill, Credit)))
	c.filled = now
	if c.credit > 0 {
		return ""
	}
	return kind
}

// begins counts a stream that the peer begins, and reports whether it is one too many.
func (c *Conn) begins() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held.begin(c.in.stream())
}

// ends counts a stream that the peer resets.
func (c *Conn) ends() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.end(c.in.stream())
}

// earn adds the credit of a number of frames with effect.
func (c *Conn) earn(frames int64) {
	c.credit = int(min(Credit, int64(c.credit)+frames*earned))
}

// frames finds the headers of frames in a stream of bytes.
type frames struct {
	skip   int // bytes of the payload still to come
	have   int // bytes of the header that have been read
	header [frameHeader]byte
}

// stream returns the stream of the frame that next has returned.
func (f *frames) stream() uint32 {
	return binary.BigEndian.Uint32(f.header[5:]) &^ (1 << 31)
}

// next returns the next frame whose header ends in p, and the bytes after the header; ok is
// false if there is none.
func (f *frames) next(p []byte) (kind, flags byte, length int, rest []byte, ok bool) {
	if f.skip >= len(p) {
		f.skip -= len(p)
		return 0, 0, 0, nil, false
	}
	p = p[f.skip:]
	f.skip = 0
	n := copy(f.header[f.have:], p)
	if f.have += n; f.have < frameHeader {
		return 0, 0, 0, nil, false
	}
	f.have = 0
	length = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	f.skip = length
	return f.header[3], f.header[4], length, p[n:], true
}
