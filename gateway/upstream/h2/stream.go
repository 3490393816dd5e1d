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

	"github.com/headgate/headgate/internal/lazydeadline"
)

// Stream is one call. One goroutine may send while another receives; [Stream.Close] ends
// both.
type Stream struct {
	conn *conn
	id   uint32

	// What is sent; the connection's mu is held.
	window   int // that the peer grants
	prefix   [prefixBytes]byte
	head     []byte        // of the prefix, not yet sent
	pending  []byte        // of the message, not yet sent
	last     bool          // it is the last
	sentLast bool          // and has been sent
	drained  chan struct{} // tells who waits that nothing is pending; nil: nobody does

	mu       sync.Mutex
	ready    chan struct{} // tells who waits that there is something; holds one
	whole    bool          // whoever waits wants the answer as a whole
	over     bool
	err      error                // when over: io.EOF after the peer's last word
	begun    bool                 // with the answer
	initial  int                  // how many of the fields are the answer's headers
	fields   []hpack.HeaderField  // headers, then trailers
	place    [8]hpack.HeaderField // that they mostly lie in
	messages []message            // complete; those before next have been received
	next     int
	first    [1]message // the usual storage of messages
	coming   message    // not yet complete
	room     int        // bytes that the peer may still send
	credit   int        // bytes that it may be granted anew
	memory   memory     // of messages
}

// message is one of the peer's.
type message struct {
	prefix   [prefixBytes]byte
	prefixed int     // bytes of the prefix that are there
	size     int     // by the prefix
	bytes    *[]byte // from the channel's memory; nil: there is no size yet
	filled   int
	owed     int // bytes that the peer is granted anew when this is received
}

func newStream(c *conn, id uint32, request *Request) *Stream {
	s := &Stream{conn: c, id: id, window: c.streamWindow, whole: request.Whole, ready: make(chan struct{}, 1), room: c.channel.config.StreamWindow}
	s.fields, s.messages = s.place[:0], s.first[:0]
	s.memory = memory{pool: c.channel.config.Memory, meter: request.Meter}
	return s
}

// Send sends a message, and last says that none follows. It returns when the message's
// memory may be used again. Errors: ctx's, which end the stream; [io.EOF] when the call
// has ended, as [Stream.Receive] says.
func (s *Stream) Send(ctx context.Context, message []byte, last bool) error {
	c := s.conn
	c.mu.Lock()
	if c.streams[s.id] != s || s.last {
		c.mu.Unlock()
		return io.EOF
	}
	defer c.mu.Unlock()
	c.kick()
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

// CloseSend says that no message follows.
func (s *Stream) CloseSend() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] != s || s.last {
		return
	}
	s.last, s.sentLast = true, true
	c.out = appendFrame(c.out, 0, http2.FrameData, http2.FlagDataEndStream, s.id)
	c.kick()
}

// sent tells who waits that nothing is pending. The connection's mu is held.
func (s *Stream) sent() {
	if s.drained != nil {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// Receive returns the next message, whose memory goes back when it is freed. Errors:
// [io.EOF] after the peer's last word, which stands in the trailers; [*BrokenError];
// ctx's, which end the stream.
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

// take returns what Receive does, if it need not wait (done).
func (s *Stream) take() (next mem.Buffer, done bool, err error) {
	s.mu.Lock()
	failed := s.over && s.err != io.EOF //nolint:errorlint // it is set to that itself
	if s.waiting() == 0 || s.whole && (!s.over || failed) {
		defer s.mu.Unlock()
		return nil, s.over, s.err
	}
	m := s.messages[s.next]
	s.messages[s.next] = message{}
	if s.next++; s.next == len(s.messages) {
		s.messages, s.next = s.messages[:0], 0
	}
	s.credit += m.owed
	if s.waiting() == 0 {
		s.credit += s.coming.owed
		s.coming.owed = 0
	}
	granted := 0
	if !s.over {
		granted = s.grant()
	}
	s.mu.Unlock()
	if granted > 0 {
		s.conn.regrant(s, granted)
	}
	return m.buffer(&s.memory), true, nil
}

// waiting returns how many complete messages have not been received. s.mu is held.
func (s *Stream) waiting() int { return len(s.messages) - s.next }

// push adds a complete message, and reuses the places of received ones once these are more
// than half. s.mu is held.
func (s *Stream) push(m message) {
	if len(s.messages) == cap(s.messages) && s.next > len(s.messages)/2 {
		n := copy(s.messages, s.messages[s.next:])
		clear(s.messages[n:])
		s.messages, s.next = s.messages[:n], 0
	}
	s.messages = append(s.messages, m)
}

// buffer returns the message's bytes, in memory that knows where it belongs.
func (m *message) buffer(memory *memory) mem.Buffer {
	if m.bytes == nil {
		return mem.SliceBuffer(nil)
	}
	if mem.IsBelowBufferPoolingThreshold(cap(*m.bytes)) {
		memory.received(len(*m.bytes)) // nothing reports that it is freed
	}
	return mem.NewBuffer(m.bytes, memory)
}

// Header returns the answer's header fields, once there has been a message or the end.
// They are none when it has trailers alone.
func (s *Stream) Header() []hpack.HeaderField {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields[:s.initial]
}

// Trailer returns the answer's trailers, once it has ended.
func (s *Stream) Trailer() []hpack.HeaderField {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields[s.initial:]
}

// Close ends the call, if it has not ended, and gives back what was not received.
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

func (m *message) free(memory *memory) {
	if m.bytes != nil {
		memory.Put(m.bytes)
		m.bytes = nil
	}
}

// settle says that nothing more comes, and why, once.
func (s *Stream) settle(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conclude(why)
}

// conclude is settle with s.mu held.
func (s *Stream) conclude(why error) {
	if s.over {
		return
	}
	s.over, s.err = true, why
	s.coming.free(&s.memory)
	s.signal()
}

// signal tells who waits that there is something.
func (s *Stream) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// headers handles a block of header fields, which it copies. foreign says that they are the
// headers of an answer that is not gRPC's, whose rest is discarded. It returns
// [http2.StreamError] for an invalid block.
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
	case last && s.coming.prefixed > 0:
		s.conclude(&BrokenError{Malformed: true, Cause: io.ErrUnexpectedEOF})
	case last, foreign:
		s.conclude(io.EOF)
	}
	return nil
}

// foreign reports whether the fields are the headers of an answer that is not gRPC's, such as
// an HTTP server's to an unknown path. No messages follow them.
func (s *Stream) foreign(fields []hpack.HeaderField) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.begun && !informational(fields) && !SpeaksGRPC(fields)
}

// answered reports whether the peer has begun to answer.
func (s *Stream) answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// SpeaksGRPC reports whether an answer with these header fields is gRPC's: by a status of
// gRPC's own, or else by its HTTP status and content type.
// Source: grpc/doc/http-grpc-status-mapping.md.
func SpeaksGRPC(fields []hpack.HeaderField) bool {
	ok, grpc := false, false
	for i := range fields {
		switch f := &fields[i]; f.Name {
		case ":status":
			ok = f.Value == "200"
		case "content-type":
			rest, named := strings.CutPrefix(f.Value, "application/grpc")
			grpc = named && (rest == "" || rest[0] == '+' || rest[0] == ';')
		case "grpc-status":
			return true
		}
	}
	return ok && grpc
}

// informational reports whether the fields are those of an answer before the answer, RFC
// 9110, section 15.2.
func informational(fields []hpack.HeaderField) bool {
	return len(fields) > 0 && fields[0].Name == ":status" && strings.HasPrefix(fields[0].Value, "1")
}

// data takes a part of the answer's messages, which came in a frame of so many bytes, and
// returns how many the peer may be granted anew. [http2.StreamError] ends the stream.
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
		n, err := s.coming.add(part, s.conn.channel.config.MaxMessageBytes, &s.memory)
		if err != nil {
			return 0, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeCancel, Cause: err}
		}
		part = part[n:]
		// Of the message that is received next all must come, however large. Those after
		// it wait until it has been.
		if s.waiting() == 0 {
			s.credit += n
		} else {
			s.coming.owed += n
		}
		if s.coming.complete() {
			s.push(s.coming)
			s.coming = message{}
			if !s.whole {
				s.signal()
			}
		}
	}
	return s.grant(), nil
}

// grant returns what the peer may be granted anew, when it is worth a frame.
func (s *Stream) grant() int {
	if s.credit < s.conn.channel.config.StreamWindow/4 {
		return 0
	}
	granted := s.credit
	s.room += granted
	s.credit = 0
	return granted
}

// firstPlace is what a message gets that says it is larger: it must come to get more.
const firstPlace = 1 << 20

// add appends the beginning of part that belongs to the message, and returns its length.
// Error: [ErrTooLarge] for a message of more than most bytes, and those of memory.
func (m *message) add(part []byte, most int, memory *memory) (int, error) {
	if m.prefixed < prefixBytes {
		n := copy(m.prefix[m.prefixed:], part)
		if m.prefixed += n; m.prefixed < prefixBytes {
			return n, nil
		}
		if m.prefix[0] != 0 {
			return 0, ErrCompressed
		}
		size := binary.BigEndian.Uint32(m.prefix[1:])
		if uint64(size) > uint64(most) { //nolint:gosec // positive
			return 0, ErrTooLarge
		}
		if m.size = int(size); m.size > 0 {
			var err error
			if m.bytes, err = memory.take(min(m.size, firstPlace)); err != nil {
				return 0, err
			}
		}
		return n, nil
	}
	if m.filled == len(*m.bytes) {
		larger, err := memory.take(min(m.size, 2*m.filled))
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

// complete reports whether all of the message is there.
func (m *message) complete() bool { return m.prefixed == prefixBytes && m.filled == m.size }
