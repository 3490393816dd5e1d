package h2

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/lazydeadline"
)

const (
	// firstWindow, firstFrame and firstTable are what a peer grants that says nothing else.
	firstWindow, firstFrame, firstTable = 65535, 16384, 4096
	// maxStreamID is the last stream of a connection, RFC 9113, section 5.1.1.
	maxStreamID = math.MaxInt32
	// readBuffer is what a connection reads into.
	readBuffer = 32 << 10
	// maxHeaderBytes bounds an answer's header fields, names and values.
	maxHeaderBytes = 1 << 20
)

// conn is one connection. Two goroutines belong to it: one reads, and one writes what
// others have put into out.
type conn struct {
	channel   *Channel
	net       net.Conn
	pingAfter time.Duration
	greeted   chan struct{} // closed by the peer's first words
	done      chan struct{} // closed by the end
	wake      chan struct{} // tells the writer that there is something; holds one
	lastRead  atomic.Int64  // when something was read last, since began
	answered  atomic.Int64  // when a part of an answer was read last, since began
	began     time.Time

	fields inbound // the reader's alone

	mu       sync.Mutex
	err      error // why it has ended; nil: it has not
	draining bool  // takes no further streams
	streams  map[uint32]*Stream
	nextID   uint32
	waiting  []chan struct{} // calls that wait for a place, first come first served
	turns    int             // places of calls that have waited and have not begun yet
	out      []byte          // to be written next
	spare    []byte          // what was written last, to be used again
	writing  bool            // the writer knows that there is something
	control  *http2.Framer   // writes into out
	headers  outbound
	queue    []*Stream // whose messages wait for room
	window   int       // that the peer grants, of all streams
	credit   int       // read and not yet granted anew

	// What the peer has set.
	maxStreams   int
	maxFrame     int
	streamWindow int
	maxHeaders   uint64

	alive    *time.Timer // looks for signs of life
	pingedAt int64       // when the peer was asked for one; 0: it was not, or has answered
}

// newConn returns a connection that has not started.
func newConn(channel *Channel, raw net.Conn) *conn {
	c := &conn{
		channel: channel, net: raw, greeted: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1), began: time.Now(),
		streams: map[uint32]*Stream{}, nextID: 1, window: firstWindow,
		maxStreams: math.MaxInt, maxFrame: firstFrame, streamWindow: firstWindow, maxHeaders: math.MaxUint64,
	}
	c.control = http2.NewFramer(appender{&c.out}, nil)
	c.headers.init(&channel.config, channel.address)
	c.fields.init()
	return c
}

// appender is a writer at the end of some bytes.
type appender struct{ to *[]byte }

// Write implements [io.Writer].
func (a appender) Write(p []byte) (int, error) {
	*a.to = append(*a.to, p...)
	return len(p), nil
}

// start says the first words, and has the connection read and written from then on.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, http2.ClientPreface...)
	c.tell(c.control.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(c.channel.config.StreamWindow)}, //nolint:gosec // a bound of megabytes
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderBytes},
	))
	c.tell(c.control.WriteWindowUpdate(0, uint32(c.channel.config.ConnWindow-firstWindow))) //nolint:gosec // as above
	c.alive = time.AfterFunc(c.pingAfter, c.look)
	c.channel.running.Go(c.write)
	c.channel.running.Go(c.read)
}

// tell has the writer write what the control framer has put into out. The error is of
// what cannot be framed, which is no frame of ours. c.mu is held.
func (c *conn) tell(err error) {
	if err != nil {
		panic(err) // not reached: appending does not fail, and our frames are sound
	}
	c.kick()
}

// kick has the writer look. c.mu is held.
func (c *conn) kick() {
	if !c.writing {
		c.writing = true
		c.wake <- struct{}{} // there is room: the writer takes it before it sets writing to false
	}
}

// open begins a stream.
func (c *conn) open(ctx context.Context, request Request) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !c.draining && (len(c.waiting) > 0 || !c.room()) {
		if err := c.wait(ctx); err != nil {
			return nil, err
		}
		c.turns--
		defer c.admit() // if the call does not begin after all, the next one gets its place
	}
	if c.err != nil || c.draining {
		return nil, errElsewhere
	}
	deadline, bounded := ctx.Deadline()
	remaining := time.Until(deadline)
	if bounded && remaining <= 0 {
		return nil, context.DeadlineExceeded
	}
	if !bounded {
		remaining = 0
	}
	if c.headers.sizeOf(request.Fields, request.Path) > c.maxHeaders {
		return nil, ErrHeadersTooLarge
	}
	c.headers.encode(request.Fields, request.Path, contextkit.CalleeTime(remaining))
	s := newStream(c, c.nextID, &request)
	c.nextID += 2
	if c.nextID > maxStreamID {
		c.drain()
	}
	c.streams[s.id] = s
	c.appendHeaders(s.id, c.headers.block.Bytes())
	if request.HasMessage {
		c.offer(s, request.Message, request.Last)
	}
	c.kick()
	return s, nil
}

// maxReady is how much may be ready to be written when a call begins: a peer that takes
// nothing must not fill our memory.
const maxReady = 1 << 20

// room reports whether the connection takes another call now. c.mu is held.
func (c *conn) room() bool { return len(c.streams)+c.turns < c.maxStreams && len(c.out) < maxReady }

// wait waits for a place on the connection, which is then reserved for the call as one of
// c.turns. c.mu is held, but not while it waits. After an error the call has no place.
func (c *conn) wait(ctx context.Context) error {
	turn := make(chan struct{})
	c.waiting = append(c.waiting, turn)
	c.mu.Unlock()
	err := lazydeadline.Await(ctx, turn)
	c.mu.Lock()
	if err == nil {
		return nil
	}
	if at := slices.Index(c.waiting, turn); at >= 0 {
		c.waiting = slices.Delete(c.waiting, at, at+1)
	} else {
		c.turns--
		c.admit()
	}
	return err
}

// admit gives the free places to the calls that wait. c.mu is held.
func (c *conn) admit() {
	for len(c.waiting) > 0 && (c.draining || c.room()) {
		close(c.waiting[0])
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		c.turns++
	}
}

// drain takes no further streams; the connection ends with its last, when what is ready
// has been written. c.mu is held.
func (c *conn) drain() {
	c.draining = true
	c.channel.retire(c)
	c.admit() // the calls that wait fail
	c.kick()
}

// remove ends a stream on our side. c.mu is held.
func (c *conn) remove(s *Stream) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.drop(s)
	c.admit()
	if c.draining {
		c.kick() // it may have been the last
	}
}

// stream returns the open stream of an id, nil if there is none any more.
func (c *conn) stream(id uint32) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id%2 == 0 || id >= c.nextID {
		return nil, fmt.Errorf("the peer answers on stream %d, which was never opened: %w", id, http2.ConnectionError(http2.ErrCodeProtocol))
	}
	return c.streams[id], nil
}

// takesNone reports whether the connection takes no further streams.
func (c *conn) takesNone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining || c.err != nil
}

// cause returns why the connection has ended.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end ends the connection, and the streams on it, once.
func (c *conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
		c.drop(s)
	}
	clear(c.streams)
	c.drain()
	c.alive.Stop()
	close(c.done)
	c.mu.Unlock()
	_ = c.net.Close() // whatever is wrong with it, it is over
	for _, s := range streams {
		s.settle(&BrokenError{Cause: err})
	}
	c.channel.forget(c)
}

// read handles what the peer says until the connection ends.
func (c *conn) read() {
	framer := http2.NewFramer(nil, bufio.NewReaderSize(noting{c}, readBuffer))
	framer.SetReuseFrames()
	framer.SetMaxReadFrameSize(firstFrame)
	for {
		frame, err := framer.ReadFrame()
		if err == nil {
			err = c.handle(frame)
		}
		if one, ok := errors.AsType[http2.StreamError](err); ok {
			why := one.Cause
			if why == nil {
				why = one
			}
			c.reset(one.StreamID, one.Code, why)
			continue
		}
		if errors.Is(err, io.EOF) { // which would be a stream's good end
			err = errLeft
		}
		if err != nil {
			c.accuse(err)
			c.end(err)
			return
		}
	}
}

// accuseWithin is how long a peer has to take the last word.
const accuseWithin = 100 * time.Millisecond

// accuse tells a peer what it did wrong, if it did and takes it: RFC 9113, section 5.4.1.
func (c *conn) accuse(err error) {
	code, wrong := errors.AsType[http2.ConnectionError](err)
	if errors.Is(err, http2.ErrFrameTooLarge) {
		code, wrong = http2.ConnectionError(http2.ErrCodeFrameSize), true
	}
	if !wrong {
		return
	}
	_ = c.net.SetWriteDeadline(time.Now().Add(accuseWithin))
	_ = http2.NewFramer(c.net, nil).WriteGoAway(0, http2.ErrCode(code), nil) // whether it is taken or not, the connection ends
}

// noting reads, and notes when the peer is heard.
type noting struct{ *conn }

// Read implements [io.Reader].
func (c noting) Read(p []byte) (int, error) {
	n, err := c.net.Read(p)
	c.lastRead.Store(int64(time.Since(c.began)))
	return n, err
}

// look asks a peer for a sign of life that has been silent with calls on the connection,
// and ends the connection when there is none.
func (c *conn) look() {
	c.mu.Lock()
	now, lastRead := int64(time.Since(c.began)), c.lastRead.Load()
	silent := time.Duration(now - lastRead)
	switch {
	case c.err != nil:
	case c.pingedAt > lastRead && time.Duration(now-c.pingedAt) >= c.channel.config.PingTimeout:
		c.mu.Unlock()
		c.end(fmt.Errorf("the peer has been silent for %v", silent.Round(time.Millisecond)))
		return
	case c.pingedAt > lastRead:
		c.alive.Reset(c.channel.config.PingTimeout - time.Duration(now-c.pingedAt))
	case len(c.streams) == 0:
		c.alive.Reset(c.pingAfter)
	case silent < c.pingAfter:
		c.alive.Reset(c.pingAfter - silent)
	default:
		c.pingedAt = now
		c.tell(c.control.WritePing(false, [8]byte{}))
		c.alive.Reset(c.channel.config.PingTimeout)
	}
	c.mu.Unlock()
}
