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
	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/lazydeadline"
)

const (
	// firstWindow, firstFrame and firstTable are the initial values of the peer's settings (RFC
	// 9113 §6.5.2).
	firstWindow, firstFrame, firstTable = 65535, 16384, 4096
	// maxStreamID is the last stream id of a connection (RFC 9113 §5.1.1).
	maxStreamID = math.MaxInt32
	// readBuffer is the size of the read buffer.
	readBuffer = 32 << 10
)

// conn is one connection. It has two goroutines: one reads, and one writes the bytes that calls
// have appended to out.
type conn struct {
	channel   *Channel
	net       net.Conn
	pingAfter time.Duration
	greeted   chan struct{} // closed by the peer's SETTINGS
	done      chan struct{} // closed when the connection ends
	wake      chan struct{} // notifies the writer of new bytes; capacity 1
	lastRead  atomic.Int64  // time of the last read, since began
	answered  atomic.Int64  // time of the last read part of an answer, since began
	began     time.Time

	fields inbound // used by the reader only

	mu       sync.Mutex
	err      error // the reason that it has ended; nil: it has not
	draining bool  // accepts no further streams
	streams  map[uint32]*Stream
	nextID   uint32
	waiting  []chan struct{} // calls that wait for a free stream, in FIFO order
	reserved int             // streams reserved for calls that have waited and have not begun yet
	out      []byte          // written next
	spare    []byte          // written last, for reuse
	writing  bool            // the writer has been notified
	control  *http2.Framer   // writes into out
	headers  outbound
	queue    []*Stream // streams whose messages wait for window or space
	window   int       // the peer's connection flow control window
	credit   int       // bytes read and not yet granted again

	// Settings of the peer.
	maxStreams   int
	maxFrame     int
	streamWindow int
	maxHeaders   uint64

	alive    *time.Timer // checks whether the peer is alive
	pingedAt int64       // time of the unanswered PING; 0: none
}

// newConn returns a connection that has not started.
func newConn(channel *Channel, raw net.Conn) *conn {
	c := &conn{
		channel:      channel,
		net:          raw,
		greeted:      make(chan struct{}),
		done:         make(chan struct{}),
		wake:         make(chan struct{}, 1),
		began:        time.Now(),
		streams:      map[uint32]*Stream{},
		nextID:       1,
		window:       firstWindow,
		maxStreams:   math.MaxInt,
		maxFrame:     firstFrame,
		streamWindow: firstWindow,
		maxHeaders:   math.MaxUint64,
	}
	c.control = http2.NewFramer(appender{&c.out}, nil)
	c.headers.init(&channel.config, channel.address)
	c.fields.init()
	return c
}

// appender is an io.Writer that appends to a slice.
type appender struct{ to *[]byte }

// Write implements [io.Writer].
func (a appender) Write(p []byte) (int, error) {
	*a.to = append(*a.to, p...)
	return len(p), nil
}

// start sends the preface and SETTINGS, and starts the reader and the writer.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, http2.ClientPreface...)
	c.queueControl(c.control.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{
			ID:  http2.SettingInitialWindowSize,
			Val: uint32(c.channel.config.StreamWindow),
		},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: channels.MaxHeaderBytes},
	))
	c.queueControl(
		c.control.WriteWindowUpdate(0, uint32(c.channel.config.ConnWindow-firstWindow)),
	)
	c.alive = time.AfterFunc(c.pingAfter, c.checkAlive)
	c.channel.running.Go(c.write)
	c.channel.running.Go(c.read)
}

// queueControl notifies the writer of a frame that the control framer has appended to out. err is
// the framer's error, which valid frames do not cause. c.mu is held.
func (c *conn) queueControl(err error) {
	if err != nil {
		panic(err) // not reached: appending does not fail, and the frames are valid
	}
	c.wakeWriter()
}

// wakeWriter notifies the writer. c.mu is held.
func (c *conn) wakeWriter() {
	if !c.writing {
		c.writing = true
		c.wake <- struct{}{} // never blocks: the writer receives before it sets writing to false
	}
}

// open begins a stream.
func (c *conn) open(ctx context.Context, request channels.Request) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !c.draining && (len(c.waiting) > 0 || !c.hasCapacity()) {
		if err := c.wait(ctx); err != nil {
			return nil, err
		}
		c.reserved--
		defer c.admit() // if the call does not begin after all, the next one gets its stream
	}
	if c.err != nil || c.draining {
		return nil, errDraining
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
		return nil, channels.ErrHeadersTooLarge
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
	c.wakeWriter()
	return s, nil
}

// maxReady bounds the bytes that may be waiting to be written when a call begins: a peer that reads
// nothing must not fill the gateway's memory.
const maxReady = 1 << 20

// hasCapacity reports whether the connection accepts another call now. c.mu is held.
func (c *conn) hasCapacity() bool {
	return len(c.streams)+c.reserved < c.maxStreams && len(c.out) < maxReady
}

// wait waits for a free stream of the connection, which is then reserved for the call in
// c.reserved. c.mu is held, except while it waits. After an error nothing is reserved.
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
		c.reserved--
		c.admit()
	}
	return err
}

// admit reserves free streams for the waiting calls. c.mu is held.
func (c *conn) admit() {
	for len(c.waiting) > 0 && (c.draining || c.hasCapacity()) {
		close(c.waiting[0])
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		c.reserved++
	}
}

// drain stops accepting streams; the connection ends with the last one, when all pending bytes have
// been written. c.mu is held.
func (c *conn) drain() {
	c.draining = true
	c.channel.retire(c)
	c.admit() // the waiting calls fail
	c.wakeWriter()
}

// remove ends a stream on this side. c.mu is held.
func (c *conn) remove(s *Stream) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.drop(s)
	c.admit()
	if c.draining {
		c.wakeWriter() // it may have been the last
	}
}

// stream returns the open stream of an id, nil if it has ended.
func (c *conn) stream(id uint32) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id%2 == 0 || id >= c.nextID {
		return nil, fmt.Errorf("the peer answers on stream %d, which was never opened: %w", id,
			http2.ConnectionError(http2.ErrCodeProtocol))
	}
	return c.streams[id], nil
}

// isDraining reports whether the connection accepts no further streams.
func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining || c.err != nil
}

// cause returns the reason that the connection has ended.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end ends the connection and its streams, once.
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
	_ = c.net.Close() // its error is of no use now
	for _, s := range streams {
		s.end(&channels.BrokenError{Cause: err})
	}
	c.channel.forget(c)
}

// read handles the peer's frames until the connection ends.
func (c *conn) read() {
	framer := http2.NewFramer(nil, bufio.NewReaderSize(timedReader{c}, readBuffer))
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
		if errors.Is(err, io.EOF) { // a plain EOF would mean the successful end of a stream
			err = errPeerClosed
		}
		if err != nil {
			c.sendGoAway(err)
			c.end(err)
			return
		}
	}
}

// accuseWithin bounds the time to send the final GOAWAY.
const goAwayTimeout = 100 * time.Millisecond

// sendGoAway sends a GOAWAY to a peer that violated the protocol (RFC 9113 §5.4.1).
func (c *conn) sendGoAway(err error) {
	code, wrong := errors.AsType[http2.ConnectionError](err)
	if errors.Is(err, http2.ErrFrameTooLarge) {
		code, wrong = http2.ConnectionError(http2.ErrCodeFrameSize), true
	}
	if !wrong {
		return
	}
	_ = c.net.SetWriteDeadline(time.Now().Add(goAwayTimeout))
	_ = http2.NewFramer(c.net, nil).WriteGoAway(0, http2.ErrCode(code), nil) // the connection ends, sent or not
}

// timedReader is the connection's reader, which records the time of each read.
type timedReader struct{ *conn }

// Read implements [io.Reader].
func (c timedReader) Read(p []byte) (int, error) {
	n, err := c.net.Read(p)
	c.lastRead.Store(int64(time.Since(c.began)))
	return n, err
}

// checkAlive sends a PING to a peer that has been idle with calls in flight, and ends the
// connection if an earlier PING is unanswered.
func (c *conn) checkAlive() {
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
		c.queueControl(c.control.WritePing(false, [8]byte{}))
		c.alive.Reset(c.channel.config.PingTimeout)
	}
	c.mu.Unlock()
}
