package h2

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/lazydeadline"
)

// Stream is a call. One goroutine may send while another receives; [Stream.Close] ends both.
type Stream struct {
	conn *conn
	id   uint32

	// State of the request; guarded by the connection's mu.
	window   int // the peer's flow control window
	prefix   [prefixBytes]byte
	head     []byte        // unsent bytes of the prefix
	pending  []byte        // unsent bytes of the message
	last     bool          // it is the last message
	sentLast bool          // the last message has been sent
	drained  chan struct{} // notifies a waiting sender that nothing is pending; nil: none waits

	mu         sync.Mutex
	ready      chan struct{} // notifies the receiver; capacity 1
	whole      bool          // the receiver wants the complete answer only
	over       bool
	err        error                // set when over; io.EOF after the peer's trailers
	begun      bool                 // the answer has begun
	initial    int                  // number of fields that are headers
	fields     []hpack.HeaderField  // headers, then trailers
	fieldSpace [8]hpack.HeaderField // the usual storage of fields
	messages   []message            // complete; those before next have been received
	next       int
	first      [1]message      // the usual storage of messages
	partial    message         // not yet complete
	room       int             // bytes that the peer may still send
	credit     int             // bytes that may be granted again
	memory     channels.Memory // of messages
}

// message is a message of the peer.
type message struct {
	prefix   [prefixBytes]byte
	prefixed int     // received bytes of the prefix
	size     int     // according to the prefix
	bytes    *[]byte // from the channel's memory; nil: the size is not known yet
	filled   int
	credit   int // bytes to grant again when the message is received
}

func newStream(c *conn, id uint32, request *channels.Request) *Stream {
	s := &Stream{
		conn:   c,
		id:     id,
		window: c.streamWindow,
		whole:  request.Whole,
		ready:  make(chan struct{}, 1),
		room:   c.channel.config.StreamWindow,
	}
	s.fields, s.messages = s.fieldSpace[:0], s.first[:0]
	s.memory = channels.Memory{Pool: c.channel.config.Memory, Meter: request.Meter}
	return s
}

// Send sends a message; last reports that it is the last one. It returns when the message's memory
// may be reused. Errors: that of ctx, which ends the stream; [io.EOF] when the call has ended, for
// the reason that [Stream.Receive] returns.
func (s *Stream) Send(ctx context.Context, message []byte, last bool) error {
	c := s.conn
	c.mu.Lock()
	if c.streams[s.id] != s || s.last {
		c.mu.Unlock()
		return io.EOF
	}
	defer c.mu.Unlock()
	c.wakeWriter()
	if c.offer(s, message, last) {
		return nil
	}
	if s.drained == nil {
		s.drained = make(chan struct{}, 1)
	}
	c.mu.Unlock()
	err := lazydeadline.Await(ctx, s.drained)
	if err != nil {
		s.Close()
	}
	c.mu.Lock()
	if err == nil && c.streams[s.id] != s && !s.sentLast {
		return io.EOF
	}
	return err
}

// CloseSend ends the request.
func (s *Stream) CloseSend() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] != s || s.last {
		return
	}
	s.last, s.sentLast = true, true
	c.out = appendFrame(c.out, 0, http2.FrameData, http2.FlagDataEndStream, s.id)
	c.wakeWriter()
}

// sent notifies a waiting sender that nothing is pending. The connection's mu is held.
func (s *Stream) sent() {
	if s.drained != nil {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// Receive returns the next message; its buffer is pooled and must be freed. Errors: [io.EOF] after
// the peer's trailers; [*channels.BrokenError]; that of ctx, which ends the stream.
func (s *Stream) Receive(ctx context.Context) (mem.Buffer, error) {
	for {
		next, done, err := s.take()
		if done {
			return next, err
		}
		if err := lazydeadline.Await(ctx, s.ready); err != nil {
			s.Close()
			return nil, err
		}
	}
}

// take returns the results of Receive. done is false if Receive must wait.
func (s *Stream) take() (next mem.Buffer, done bool, err error) {
	s.mu.Lock()
	failed := s.over && s.err != io.EOF //nolint:errorlint // it is assigned io.EOF itself
	if s.waiting() == 0 || s.whole && (!s.over || failed) {
		defer s.mu.Unlock()
		return nil, s.over, s.err
	}
	m := s.messages[s.next]
	s.messages[s.next] = message{}
	if s.next++; s.next == len(s.messages) {
		s.messages, s.next = s.messages[:0], 0
	}
	s.credit += m.credit
	if s.waiting() == 0 {
		s.credit += s.partial.credit
		s.partial.credit = 0
	}
	granted := 0
	if !s.over {
		granted = s.grant()
	}
	s.mu.Unlock()
	if granted > 0 {
		s.conn.grantStream(s, granted)
	}
	return m.buffer(&s.memory), true, nil
}

// waiting returns the number of complete messages that have not been received. s.mu is held.
func (s *Stream) waiting() int { return len(s.messages) - s.next }

// push adds a complete message, and reuses the space of received ones once they are more than half.
// s.mu is held.
func (s *Stream) push(m message) {
	if len(s.messages) == cap(s.messages) && s.next > len(s.messages)/2 {
		n := copy(s.messages, s.messages[s.next:])
		clear(s.messages[n:])
		s.messages, s.next = s.messages[:n], 0
	}
	s.messages = append(s.messages, m)
}

// buffer returns the message's bytes in a buffer that returns to memory.
func (m *message) buffer(memory *channels.Memory) mem.Buffer {
	if m.bytes == nil {
		return mem.SliceBuffer(nil)
	}
	return memory.Buffer(m.bytes)
}

// Header returns the answer's header fields, after the first message or the end. It is empty for a
// trailers-only answer.
func (s *Stream) Header() []hpack.HeaderField {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields[:s.initial]
}

// Trailer returns the answer's trailers, after it has ended.
func (s *Stream) Trailer() []hpack.HeaderField {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields[s.initial:]
}

// Close ends the call, if it has not ended, and frees unreceived messages.
func (s *Stream) Close() {
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	if !over {
		s.conn.reset(s.id, http2.ErrCodeCancel, context.Canceled)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages[s.next:] {
		m.free(&s.memory)
	}
	s.messages, s.next = nil, 0
}

func (m *message) free(memory *channels.Memory) {
	if m.bytes != nil {
		memory.Put(m.bytes)
		m.bytes = nil
	}
}

// end ends the answer for a reason, once.
func (s *Stream) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(why)
}

// endLocked is end for callers that hold s.mu.
func (s *Stream) endLocked(why error) {
	if s.over {
		return
	}
	s.over, s.err = true, why
	s.partial.free(&s.memory)
	s.signal()
}

// signal notifies the receiver.
func (s *Stream) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// headers handles a header block, whose fields it copies. foreign reports that they are the headers
// of an answer that is not gRPC, whose rest is discarded. It returns [http2.StreamError] for an
// invalid block.
func (s *Stream) headers(fields []hpack.HeaderField, last, foreign bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return nil
	case s.begun && !last:
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	case !s.begun && !last && informational(fields):
		return nil
	}
	s.fields = append(s.fields, fields...)
	if !last {
		s.initial = len(fields)
	}
	s.begun = true
	switch {
	case last && s.partial.prefixed > 0:
		s.endLocked(&channels.BrokenError{Malformed: true, Cause: io.ErrUnexpectedEOF})
	case last, foreign:
		s.endLocked(io.EOF)
	}
	return nil
}

// foreign reports whether the fields are the headers of an answer that is not gRPC, such as that of
// an HTTP server to an unknown path. No messages follow them.
func (s *Stream) foreign(fields []hpack.HeaderField) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.begun && !informational(fields) && !channels.SpeaksGRPC(fields)
}

// answered reports whether the answer has begun.
func (s *Stream) answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// informational reports whether the fields are those of an informational response (RFC 9110 §15.2).
func informational(fields []hpack.HeaderField) bool {
	return len(fields) > 0 && fields[0].Name == ":status" && strings.HasPrefix(fields[0].Value, "1")
}

// data adds a part of the answer's messages, from a frame of length bytes, and returns the bytes
// that may be granted to the peer again. [http2.StreamError] ends the stream.
func (s *Stream) data(part []byte, length int) (granted int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, nil
	}
	if !s.begun {
		return 0, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	}
	if s.room -= length; s.room < 0 {
		return 0, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeFlowControl}
	}
	s.credit += length - len(part) // padding
	for len(part) > 0 {
		n, err := s.partial.add(part, s.conn.channel.config.MaxMessageBytes, &s.memory)
		if err != nil {
			return 0, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeCancel, Cause: err}
		}
		part = part[n:]
		// The message that is received next must arrive completely, regardless of its size. Messages after
		// it are granted only when it has been received.
		if s.waiting() == 0 {
			s.credit += n
		} else {
			s.partial.credit += n
		}
		if s.partial.complete() {
			s.push(s.partial)
			s.partial = message{}
			if !s.whole {
				s.signal()
			}
		}
	}
	return s.grant(), nil
}

// grant returns the bytes to grant to the peer again, if they are worth a frame.
func (s *Stream) grant() int {
	if s.credit < s.conn.channel.config.StreamWindow/4 {
		return 0
	}
	granted := s.credit
	s.room += granted
	s.credit = 0
	return granted
}

// firstAllocation is the first allocation for a larger message. More is allocated as its bytes arrive.
const firstAllocation = 1 << 20

// add appends the leading bytes of part that belong to the message, and returns their number.
// Errors: [channels.ErrTooLarge] for a message of more than most bytes, and those of memory.
func (m *message) add(part []byte, most int, memory *channels.Memory) (int, error) {
	if m.prefixed < prefixBytes {
		n := copy(m.prefix[m.prefixed:], part)
		if m.prefixed += n; m.prefixed < prefixBytes {
			return n, nil
		}
		if m.prefix[0] != 0 {
			return 0, channels.ErrCompressed
		}
		size := binary.BigEndian.Uint32(m.prefix[1:])
		if uint64(size) > uint64(most) {
			return 0, channels.ErrTooLarge
		}
		if m.size = int(size); m.size > 0 {
			var err error
			if m.bytes, err = memory.Take(min(m.size, firstAllocation)); err != nil {
				return 0, err
			}
		}
		return n, nil
	}
	if m.filled == len(*m.bytes) {
		larger, err := memory.Take(min(m.size, 2*m.filled))
		if err != nil {
			return 0, err
		}
		copy(*larger, *m.bytes)
		memory.Put(m.bytes)
		m.bytes = larger
	}
	n := copy((*m.bytes)[m.filled:], part)
	m.filled += n
	return n, nil
}

// complete reports whether all bytes of the message have arrived.
func (m *message) complete() bool { return m.prefixed == prefixBytes && m.filled == m.size }
