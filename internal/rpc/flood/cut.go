package flood

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/net/http2"
)

// cutWithin is how long the server's library may take to reset a stream that is cut. After that its peer is in the
// middle of a frame, or does not read its connection: the connection is closed.
const cutWithin = 10 * time.Second

// cuts are the streams of a connection that the server ends. c.mu is held.
type cuts struct {
	inject  []byte              // of frames that Read returns next
	open    map[uint32]struct{} // streams of [Conn.Cut] whose RST_STREAM has not been sent
	unnamed int                 // announced by [Conn.Cutting], not sent yet
	aborted int                 // announced by [Conn.Aborting], not sent yet
}

// Cut ends a stream of a server whose library cannot end one, such as grpc-go, which would store what the peer
// does not read until the connection ends: the library reads an invalid frame of the stream (a WINDOW_UPDATE of 0, RFC
// 9113 §6.9), as if the peer had sent it, forgets the stream and sends RST_STREAM. The peer receives the code
// ENHANCE_YOUR_CALM (RESOURCE_EXHAUSTED in gRPC). If that is not possible within 10 s, the connection is closed.
func (c *Conn) Cut(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cuts.open == nil {
		c.cuts.open = map[uint32]struct{}{}
	}
	if _, again := c.cuts.open[stream]; again {
		return
	}
	c.cuts.open[stream] = struct{}{}
	frame := [frameHeader + 4]byte{2: 4, 3: typeWindowUpdate}
	binary.BigEndian.PutUint32(frame[5:], stream)
	c.cuts.inject = append(c.cuts.inject, frame[:]...)
	c.cutting.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0)) // wakes a Read; a connection that has ended needs none
	time.AfterFunc(cutWithin, func() {
		if c.isCutting(stream) {
			_ = c.Close() // it cannot be used
		}
	})
}

// Cutting announces that the library will reset a stream, as INTERNAL_ERROR, whose peer does not read: the peer
// receives the code ENHANCE_YOUR_CALM.
func (c *Conn) Cutting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts.unnamed++
	c.cutting.Store(true)
}

// Answers has the resets of net/http whose peer has not read the end of its answer in time, which it sends as
// INTERNAL_ERROR, sent as ENHANCE_YOUR_CALM, and calls late for each, and for an answer over HTTP/1.1 whose end cannot
// be written in time. late must not block. Call it before the first Write.
func (c *Conn) Answers(late func()) *Conn {
	c.late = late
	return c
}

// Aborting announces that the library will reset a stream, as INTERNAL_ERROR, whose handler has given up its answer.
func (c *Conn) Aborting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts.aborted++
}

// Counted announces that an answer over HTTP/1.1 that is not read in time has been counted.
func (c *Conn) Counted() { c.counted.Store(true) }

// lost counts the answer over HTTP/1.1 that could not be written in time.
func (c *Conn) lost(err error) {
	if c.late != nil && c.plain && errors.Is(err, os.ErrDeadlineExceeded) && !c.counted.Swap(true) {
		c.late()
	}
}

// isCalmed reports whether a reset is sent with the code ENHANCE_YOUR_CALM; c.mu is held.
func (c *Conn) isCalmed(stream uint32, code http2.ErrCode) bool {
	_, cut := c.cuts.open[stream]
	switch {
	case cut:
		return true
	case code != http2.ErrCodeInternal:
		return false
	case c.cuts.aborted > 0:
		c.cuts.aborted--
		return false
	case c.cuts.unnamed > 0:
		c.cuts.unnamed--
		return true
	case c.late != nil:
		c.late()
		return true
	}
	return false
}

func (c *Conn) isCutting(stream uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, open := c.cuts.open[stream]
	return open
}

// injected copies injected frames to p between two frames of the peer. If the peer is within a frame, it returns how
// much of p the rest of the frame may fill.
func (c *Conn) injected(p []byte) (n, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.cuts.inject) == 0, c.plain:
		return 0, len(p)
	case c.begun < len(preface):
		return 0, min(len(p), len(preface)-c.begun)
	case c.in.have > 0:
		return 0, min(len(p), frameHeader-c.in.have)
	case c.in.skip > 0:
		return 0, min(len(p), c.in.skip)
	}
	n = copy(p, c.cuts.inject)
	c.cuts.inject = c.cuts.inject[n:]
	return n, 0
}

// woken reports whether a Read failed because of Cut, and lets the next one wait again.
func (c *Conn) woken(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	return c.SetReadDeadline(time.Time{}) == nil
}

// calmed returns bytes to be written, in which the resets of streams that are cut have the code ENHANCE_YOUR_CALM.
func (c *Conn) calmed(p []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, rest, copied := c.out, p, false
	for {
		frame, _, length, after, ok := out.next(rest)
		if !ok {
			break
		}
		rest = after
		if frame != typeReset || length != 4 || len(after) < length {
			continue
		}
		if !c.isCalmed(out.stream(), http2.ErrCode(binary.BigEndian.Uint32(after))) {
			continue
		}
		if !copied {
			p, copied = append([]byte(nil), p...), true
			after = p[len(p)-len(after):]
			rest = after
		}
		binary.BigEndian.PutUint32(after, uint32(http2.ErrCodeEnhanceYourCalm))
	}
	return p
}
