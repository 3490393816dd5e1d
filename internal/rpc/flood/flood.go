// Package flood counts the frames of HTTP/2 connections, and closes a connection whose peer floods it: it sends frames
// without effect faster than a correct peer does.
//
// net/http, grpc-go and x/net bound the bytes of header blocks, streams and windows. They do
// not bound frames that change none of these: empty CONTINUATION frames of a header block
// that never ends (RFC 9113 §10.5), empty DATA frames, PING, SETTINGS, PRIORITY,
// WINDOW_UPDATE, RST_STREAM of streams that have ended, and unknown ones. A peer can send
// millions of them per second on one connection. Nor do they bound the streams of a client on
// all of its connections, see [Streams].
//
// A [Conn] also ends streams whose peer does not read, for servers that cannot end them, see [Conn.Cut], and names and
// counts the resets of answers that net/http ends, see [Conn.Answers].
//
// A [Conn] parses frames in clear text, and is therefore layered on top of TLS. It parses only the frames' headers of
// nine bytes, and does not allocate. ADR-0015 gives the reasons for the numbers.
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
	// MaxContinuations is the maximum number of CONTINUATION frames of a header block. A block of 64 KiB has four full
	// frames.
	MaxContinuations = 128
	// Credit bounds the burst of frames without effect.
	Credit = 10_000
	// refill is the credit that is added per second, and earned the credit that is added for each HEADERS or DATA frame
	// sent to the peer, and for each HEADERS frame of the peer: a correct peer answers a DATA frame with at most two
	// WINDOW_UPDATE frames and a PING, and ends a call with RST_STREAM.
	refill, earned = 100, 4
)

// ErrFlood is the error of a connection whose peer floods it.
var ErrFlood = errors.New("flood: the peer sends HTTP/2 frames without effect: the connection is closed")

// Kind is the type of the frames of a flood.
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

// preface is the beginning of a client's side of a connection (RFC 9113 §3.4).
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// Conn is a connection whose peer's frames are counted. When the peer floods it, the connection is closed, and Read
// returns [ErrFlood].
type Conn struct {
	net.Conn

	flooded func(net.Conn, Kind)
	writer  io.Writer
	begun   int  // bytes of the preface that have been received
	plain   bool // the peer does not speak HTTP/2, and its bytes are not parsed
	in      frames
	block   int       // number of CONTINUATION frames of the current header block
	credit  int       // number of frames without effect that the peer may still send
	filled  time.Time // when credit was last refilled
	failed  bool

	mu      sync.Mutex // of writers, of held and of cuts
	out     frames
	held    held
	cuts    cuts
	cutting atomic.Bool  // a stream has been cut
	late    func()       // see [Conn.Answers]; nil: resets are not watched
	counted atomic.Bool  // see [Conn.Counted]
	sent    atomic.Int64 // number of HEADERS and DATA frames sent since credit was last refilled
}

// Server returns a server's connection. Its peer begins with the preface of HTTP/2, or speaks another protocol. flooded
// is called once, before the connection is closed.
func Server(c net.Conn, flooded func(net.Conn, Kind)) *Conn {
	return &Conn{
		Conn:    c,
		flooded: flooded,
		writer:  c,
		credit:  Credit,
		filled:  time.Now(),
	}
}

// Client returns a client's connection of HTTP/2. flooded is called as by [Server].
func Client(c net.Conn, flooded func(net.Conn, Kind)) *Conn {
	watched := Server(c, flooded)
	watched.begun = len(preface)
	watched.out.skip = len(preface) // the client sends it first
	return watched
}

// Through makes the connection write to w, a lower layer of the same connection, to which the layers above it add no
// bytes. It must be called before the first Write.
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

// Write implements [net.Conn]. It uses little stack, since net/http writes each frame in a new goroutine, whose small
// stack must not grow.
func (c *Conn) Write(p []byte) (int, error) {
	if c.late != nil || c.cutting.Load() {
		p = c.calmed(p)
	}
	n, err := c.writer.Write(p)
	c.written(p[:n])
	if err != nil {
		c.lost(err)
	}
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

// received counts the frames in bytes that the peer has sent, and reports a flood.
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

// begins counts a stream that the peer opens, and reports whether it exceeds the bound.
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

// earn adds the credit for a number of frames with effect.
func (c *Conn) earn(frames int64) {
	c.credit = int(min(Credit, int64(c.credit)+frames*earned))
}

// frames finds the headers of frames in a stream of bytes.
type frames struct {
	skip   int // number of bytes of the current payload that have not been read
	have   int // number of bytes of the current header that have been read
	header [frameHeader]byte
}

// stream returns the stream id of the frame that next returned last.
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
