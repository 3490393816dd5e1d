package h2

import (
	"context"
	"errors"
	"fmt"
	"math"

	"golang.org/x/net/http2"
)

// handle does what a frame of the peer's asks for. Errors end the connection, but for
// [http2.StreamError], which end a stream. It is called by the reader alone.
func (c *conn) handle(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.HeadersFrame:
		c.fields.begin(f.StreamID, f.StreamEnded())
		return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.RSTStreamFrame:
		return c.wasReset(f)
	case *http2.SettingsFrame:
		return c.set(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.answer(c.control.WritePing(true, f.Data))
		}
		return nil
	case *http2.WindowUpdateFrame:
		return c.grant(f.StreamID, int(f.Increment))
	case *http2.GoAwayFrame:
		c.leave(f)
		return nil
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // of a kind that is not known, which is to be ignored
}

// answer has the writer write an answer that the peer has asked for; one that asks on and
// on and reads nothing gets none. c.mu is held.
func (c *conn) answer(err error) error {
	if len(c.out) > 2*maxReady {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.tell(err)
	return nil
}

// data adds a part of an answer to its stream. In any case the frame's bytes are granted again
// to the connection: a stream that is reset must not reduce the other streams' window.
func (c *conn) data(f *http2.DataFrame) error {
	c.answered.Store(c.lastRead.Load())
	s, err := c.stream(f.StreamID)
	if err != nil {
		return err
	}
	granted := 0
	switch {
	case s == nil: // its call has ended
	case f.StreamEnded(): // what ends an answer is trailers
		c.finish(s)
		s.settle(&BrokenError{Malformed: true, Cause: errNoStatus})
	default:
		granted, err = s.data(f.Data(), int(f.Length))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if granted > 0 {
		c.tell(c.control.WriteWindowUpdate(f.StreamID, uint32(granted))) //nolint:gosec // at most a window
	}
	c.recredit(int(f.Length))
	return err
}

// recredit immediately grants the peer the received bytes again on the connection: a slow
// reader is bounded by its stream's window, and must not block other streams. c.mu is held.
func (c *conn) recredit(length int) {
	if c.credit += length; c.credit >= c.channel.config.ConnWindow/4 {
		c.tell(c.control.WriteWindowUpdate(0, uint32(c.credit))) //nolint:gosec // at most a window
		c.credit = 0
	}
}

// block adds to a block of header fields, and hands them over when it is complete. All
// blocks are decoded, since each tells of those to come.
func (c *conn) block(part []byte, end bool) error {
	if err := c.fields.add(part, end); err != nil {
		return fmt.Errorf("%w: %w", http2.ConnectionError(http2.ErrCodeCompression), err)
	}
	if !end {
		return nil
	}
	c.answered.Store(c.lastRead.Load())
	s, err := c.stream(c.fields.stream)
	if err != nil || s == nil {
		return err
	}
	if c.fields.size > maxHeaderBytes {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeCancel, Cause: ErrTooLarge}
	}
	foreign := !c.fields.last && s.foreign(c.fields.list)
	if c.fields.last || foreign {
		c.finish(s)
	}
	return s.headers(c.fields.list, c.fields.last, foreign)
}

// finish removes a stream whose answer has ended, before its caller is notified. The rest of
// the request, and of an answer that is not gRPC's, is discarded.
func (c *conn) finish(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s && (!s.sentLast || !c.fields.last) {
		c.tell(c.control.WriteRSTStream(s.id, http2.ErrCodeCancel))
	}
	c.remove(s)
}

// wasReset ends a stream that the peer has reset.
func (c *conn) wasReset(f *http2.RSTStreamFrame) error {
	s, err := c.stream(f.StreamID)
	if err != nil || s == nil {
		return err
	}
	c.broken(s.id, &BrokenError{
		// A peer that has begun to answer has processed the call.
		Refused: f.ErrCode == http2.ErrCodeRefusedStream && !s.answered(),
		Reset:   true,
		Code:    uint32(f.ErrCode),
		Cause:   fmt.Errorf("the peer reset the stream: %v", f.ErrCode),
	})
	return nil
}

// broken ends a stream without its peer's word, which has to know unless it said so.
func (c *conn) broken(id uint32, why error) {
	c.mu.Lock()
	s := c.streams[id]
	if s != nil {
		c.remove(s)
	}
	c.mu.Unlock()
	if s != nil {
		s.settle(why)
	}
}

// reset ends a stream by a word of ours.
func (c *conn) reset(id uint32, code http2.ErrCode, why error) {
	c.mu.Lock()
	if c.streams[id] != nil {
		c.tell(c.control.WriteRSTStream(id, code))
	}
	c.mu.Unlock()
	c.broken(id, &BrokenError{Malformed: !errors.Is(why, context.Canceled), Cause: why})
}

// regrant lets the peer send more on a stream.
func (c *conn) regrant(s *Stream, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		c.tell(c.control.WriteWindowUpdate(s.id, uint32(more))) //nolint:gosec // at most a window
	}
}

// set takes the peer's settings, and says so.
func (c *conn) set(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := f.ForeachSetting(func(setting http2.Setting) error {
		if err := setting.Valid(); err != nil {
			return err
		}
		switch setting.ID {
		case http2.SettingMaxConcurrentStreams:
			c.maxStreams = int(setting.Val)
		case http2.SettingMaxFrameSize:
			c.maxFrame = int(setting.Val)
		case http2.SettingMaxHeaderListSize:
			c.maxHeaders = uint64(setting.Val)
		case http2.SettingHeaderTableSize:
			c.headers.limit(setting.Val)
		case http2.SettingInitialWindowSize:
			more := int(setting.Val) - c.streamWindow
			c.streamWindow += more
			for _, s := range c.streams {
				if s.window += more; s.window > math.MaxInt32 {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.admit() // there may be more places now
	select {
	case <-c.greeted:
	default:
		close(c.greeted)
	}
	return c.answer(c.control.WriteSettingsAck())
}

// grant takes what the peer lets us send.
func (c *conn) grant(id uint32, more int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if c.window += more; c.window > math.MaxInt32 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else if s := c.streams[id]; s != nil {
		if s.window += more; s.window > math.MaxInt32 {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
		}
	}
	if len(c.queue) > 0 {
		c.kick()
	}
	return nil
}

// tooManyPings is how a peer says that it was asked for signs of life too often, gRFC A8.
const tooManyPings = "too_many_pings"

// leave takes the peer's farewell: streams that it has begun with go on, others never were.
func (c *conn) leave(f *http2.GoAwayFrame) {
	if f.ErrCode == http2.ErrCodeEnhanceYourCalm && string(f.DebugData()) == tooManyPings {
		c.channel.calm()
	}
	c.mu.Lock()
	c.drain()
	var refused []*Stream
	for id, s := range c.streams {
		if id > f.LastStreamID {
			refused = append(refused, s)
		}
	}
	c.mu.Unlock()
	for _, s := range refused {
		c.broken(s.id, &BrokenError{Refused: true, Cause: fmt.Errorf("the peer leaves: %v", f.ErrCode)})
	}
}
