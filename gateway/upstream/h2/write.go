package h2

import (
	"encoding/binary"
	"runtime"

	"golang.org/x/net/http2"
)

const (
	// maxOut bounds the bytes that are ready to be written, except the headers of new calls.
	maxOut = 64 << 10
	// prefixBytes is the size of a message's prefix: the compressed flag and the length.
	prefixBytes = 5
)

// write writes pending bytes until the connection ends.
func (c *conn) write() {
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		runtime.Gosched() // other goroutines with pending bytes share this write
		for {
			ready, last := c.collect()
			if last {
				c.end(errDraining)
				return
			}
			if ready == nil {
				break
			}
			if _, err := c.net.Write(ready); err != nil {
				c.end(err)
				return
			}
		}
	}
}

// collect returns the bytes to write next; nil: there are none, and the next ones need wakeWriter,
// unless the connection ends (last).
func (c *conn) collect() (ready []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unqueue()
	if len(c.out) == 0 {
		c.writing = false
		return nil, c.draining && len(c.streams) == 0
	}
	ready = c.out
	if cap(c.spare) > 2*maxOut {
		c.spare = nil // it is too large to retain
	}
	c.out, c.spare = c.spare[:0], ready
	if len(ready) >= maxReady {
		c.admit()
	}
	return ready, false
}

// unqueue moves bytes of queued messages to out, round-robin. c.mu is held.
func (c *conn) unqueue() {
	for range len(c.queue) {
		s := c.queue[0]
		before := len(c.out)
		done := c.pump(s)
		if !done && len(c.out) == before && (c.window == 0 || len(c.out) >= maxOut) {
			return // no stream may send
		}
		copy(c.queue, c.queue[1:])
		c.queue = c.queue[:len(c.queue)-1]
		if done {
			s.sent()
		} else {
			c.queue = append(c.queue, s)
		}
	}
}

// offer queues a message, and reports whether the caller may reuse its memory; otherwise the
// message waits in the queue for window or space. c.mu is held.
func (c *conn) offer(s *Stream, message []byte, last bool) bool {
	s.pending, s.last = message, last
	s.head = s.prefix[:]
	binary.BigEndian.PutUint32(s.prefix[1:], uint32(len(message)))
	if len(c.queue) == 0 && c.pump(s) {
		return true
	}
	c.queue = append(c.queue, s)
	return false
}

// pump moves as much of a stream's message to out as window and space permit, and reports whether
// that was all. c.mu is held.
func (c *conn) pump(s *Stream) bool {
	for {
		left := len(s.head) + len(s.pending)
		n := min(left, c.maxFrame, c.window, s.window, max(maxOut-len(c.out), 0))
		end := s.last && n == left
		switch {
		case n > 0 || end:
		case left == 0:
			return true
		default:
			return false
		}
		flags := http2.Flags(0)
		if end {
			flags = http2.FlagDataEndStream
		}
		c.out = appendFrame(c.out, n, http2.FrameData, flags, s.id)
		c.window -= n
		s.window -= n
		k := min(n, len(s.head))
		c.out, s.head = append(c.out, s.head[:k]...), s.head[k:]
		c.out, s.pending = append(c.out, s.pending[:n-k]...), s.pending[n-k:]
		if n == left {
			s.pending = nil
			s.sentLast = end
			return true
		}
	}
}

// drop discards a stream's unsent bytes. c.mu is held.
func (c *conn) drop(s *Stream) {
	for i, one := range c.queue {
		if one == s {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			break
		}
	}
	s.pending, s.head = nil, nil
	s.sent()
}

// appendHeaders appends a stream's header block. c.mu is held.
func (c *conn) appendHeaders(id uint32, block []byte) {
	kind := http2.FrameHeaders
	for {
		n, flags := min(len(block), c.maxFrame), http2.Flags(0)
		if n == len(block) {
			flags = http2.FlagHeadersEndHeaders
		}
		c.out = appendFrame(c.out, n, kind, flags, id)
		c.out = append(c.out, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return
		}
		kind = http2.FrameContinuation
	}
}

// appendFrame appends a frame header (RFC 9113 §4.1).
func appendFrame(to []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	to = append(to, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(to, stream)
}
