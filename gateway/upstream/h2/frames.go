package h2

import (
	"context"
	"errors"
	"fmt"
	"math"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// handle processes a frame of the peer. An error ends the connection, except for
// [http2.StreamError], which ends its stream. Only the reader calls it.
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
		return c.handleReset(f)
	case *http2.SettingsFrame:
		return c.applySettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.answer(c.control.WritePing(true, f.Data))
		}
		return nil
	case *http2.WindowUpdateFrame:
		return c.applyWindowUpdate(f.StreamID, int(f.Increment))
	case *http2.GoAwayFrame:
		c.handleGoAway(f)
		return nil
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // an unknown type is ignored (RFC 9113 §4.1)
}

// answer queues an answer that the peer has requested, unless the peer sends requests and does not
// read. c.mu is held.
func (c *conn) answer(err error) error {
	if len(c.out) > 2*maxReady {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.queueControl(err)
	return nil
}

// data adds a part of an answer to its stream. It always grants the bytes of the frame to the
// connection again: a stream that is reset must not reduce the other streams' window.
func (c *conn) data(f *http2.DataFrame) error {
	c.answered.Store(c.lastRead.Load())
	s, err := c.stream(f.StreamID)
	if err != nil {
		return err
	}
	granted := 0
	switch {
	case s == nil: // its call has ended
	case f.StreamEnded(): // answers end with trailers
		c.finish(s)
		s.end(&channels.BrokenError{Malformed: true, Cause: errNoStatus})
	default:
		granted, err = s.data(f.Data(), int(f.Length))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if granted > 0 {
		c.queueControl(c.control.WriteWindowUpdate(f.StreamID, uint32(granted)))
	}
	c.grantConn(int(f.Length))
	return err
}

// grantConn immediately grants the received bytes to the connection again: the stream's window
// bounds a slow reader, which must not block other streams. c.mu is held.
func (c *conn) grantConn(length int) {
	if c.credit += length; c.credit >= c.channel.config.ConnWindow/4 {
		c.queueControl(c.control.WriteWindowUpdate(0, uint32(c.credit)))
		c.credit = 0
	}
}

// block adds to a header block, and passes it on when it is complete. All blocks are decoded,
// because HPACK is stateful.
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
	if c.fields.size > channels.MaxHeaderBytes {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeCancel, Cause: channels.ErrTooLarge}
	}
	foreign := !c.fields.last && s.foreign(c.fields.list)
	if c.fields.last || foreign {
		c.finish(s)
	}
	return s.headers(c.fields.list, c.fields.last, foreign)
}

// finish removes a stream whose answer has ended, before its caller is notified. It discards the
// rest of the request, and of an answer that is not gRPC.
func (c *conn) finish(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s && (!s.sentLast || !c.fields.last) {
		c.queueControl(c.control.WriteRSTStream(s.id, http2.ErrCodeCancel))
	}
	c.remove(s)
}

// handleReset ends a stream that the peer has reset.
func (c *conn) handleReset(f *http2.RSTStreamFrame) error {
	s, err := c.stream(f.StreamID)
	if err != nil || s == nil {
		return err
	}
	c.broken(s.id, &channels.BrokenError{
		// A peer that has begun to answer has processed the call.
		Refused: f.ErrCode == http2.ErrCodeRefusedStream && !s.answered(),
		Reset:   true,
		Code:    uint32(f.ErrCode),
		Cause:   fmt.Errorf("the peer reset the stream: %v", f.ErrCode),
	})
	return nil
}

// broken ends a stream on this side, and resets it at the peer unless the peer ended it.
func (c *conn) broken(id uint32, why error) {
	c.mu.Lock()
	s := c.streams[id]
	if s != nil {
		c.remove(s)
	}
	c.mu.Unlock()
	if s != nil {
		s.end(why)
	}
}

// reset sends RST_STREAM and ends the stream.
func (c *conn) reset(id uint32, code http2.ErrCode, why error) {
	c.mu.Lock()
	if c.streams[id] != nil {
		c.queueControl(c.control.WriteRSTStream(id, code))
	}
	c.mu.Unlock()
	c.broken(id, &channels.BrokenError{Malformed: !errors.Is(why, context.Canceled), Cause: why})
}

// grantStream grants the peer more bytes on a stream.
func (c *conn) grantStream(s *Stream, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		c.queueControl(c.control.WriteWindowUpdate(s.id, uint32(more)))
	}
}

// applySettings applies the peer's settings and acknowledges them.
func (c *conn) applySettings(f *http2.SettingsFrame) error {
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
	c.admit() // more streams may be permitted now
	select {
	case <-c.greeted:
	default:
		close(c.greeted)
	}
	return c.answer(c.control.WriteSettingsAck())
}

// applyWindowUpdate applies a WINDOW_UPDATE of the peer.
func (c *conn) applyWindowUpdate(id uint32, more int) error {
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
		c.wakeWriter()
	}
	return nil
}

// tooManyPings is the debug data of a peer's GOAWAY for too many PINGs (gRFC A8).
const tooManyPings = "too_many_pings"

// handleGoAway handles the peer's GOAWAY: streams that it has processed continue, others are refused.
func (c *conn) handleGoAway(f *http2.GoAwayFrame) {
	if f.ErrCode == http2.ErrCodeEnhanceYourCalm && string(f.DebugData()) == tooManyPings {
		c.channel.slowPings()
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
		c.broken(s.id, &channels.BrokenError{Refused: true, Cause: fmt.Errorf("the peer leaves: %v", f.ErrCode)})
	}
}
