package edge

import (
	"bytes"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/internal/rpc"
)

// mediaEvents is the media type of Server-Sent Events.
const mediaEvents = "text/event-stream"

// headerLastEvent is the header that resumes a stream of events (HTML, "Server-sent events",
// §9.2.4).
const headerLastEvent = "Last-Event-Id"

// DefaultKeepAlive is the idle time after which a server stream sends a comment (Server-Sent
// Events) or a blank line (NDJSON): shorter than the usual timeouts of proxies.
const DefaultKeepAlive = 15 * time.Second

// streamForm is the format of a server stream's answers.
type streamForm uint8

const (
	formLines  streamForm = iota // one JSON value per line
	formEvents                   // Server-Sent Events
	formRaw                      // the data of google.api.HttpBody
)

// events writes a stream of messages, each immediately.
type events struct {
	*stream
	rest   *REST
	writer http.ResponseWriter
	form   streamForm
	ticket *Ticket // nil: none

	mu             sync.Mutex // held while writing, and while headers are set, see SetHeaders
	started        bool
	ended          bool
	buffer         []byte
	keepAliveTimer *time.Timer // nil: no keep-alives
}

// keepAlive starts the keep-alives; it is called when the request has been received.
func (e *events) keepAlive() {
	if e.form == formRaw || e.rest.keepAlive <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keepAliveTimer = time.AfterFunc(e.rest.keepAlive, e.writeKeepAlive)
}

// SetHeaders calls set, which sets headers or trailers of a call's answer. If [REST] made the stream,
// it holds the stream's lock, since a keep-alive that begins the answer reads them concurrently.
func SetHeaders(of connect.ServerStream, set func()) {
	if e, ok := of.(*events); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
	}
	set()
}

// writeKeepAlive writes a keep-alive after an idle time.
func (e *events) writeKeepAlive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	text := "\n"
	if e.form == formEvents {
		text = ":\n\n"
	}
	if e.write([]byte(text), "") == nil {
		e.keepAliveTimer.Reset(e.rest.keepAlive)
	}
}

// Receive implements [connect.ServerStream]. The id of the last event that the client received
// resumes the stream.
func (e *events) Receive(msg any) error {
	if err := e.stream.Receive(msg); err != nil {
		return err
	}
	last := e.request.Header.Get(headerLastEvent)
	if e.ticket != nil {
		last = e.ticket.Resume
	}
	if last != "" && e.binding.method.ResumeField != 0 {
		if f, ok := msg.(*frame.Frame); ok {
			f.AppendText(e.binding.method.ResumeField, last)
		}
	}
	return nil
}

// Unread is for [rpc.Unread].
func (e *events) Unread() bool { return rpc.Unread(e.writer) }

// SendHeaders implements [connect.ServerStream].
func (e *events) SendHeaders() error {
	if e.form == formRaw {
		return nil // the first message has the content type
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.write(nil, "")
}

// write writes a part of the answer, after the headers. e.mu is held.
func (e *events) write(text []byte, contentType string) error {
	if !e.started {
		e.started = true
		header := e.writer.Header()
		copyHeaders(header, e.info.ResponseHeader())
		switch e.form {
		case formEvents:
			header.Set("Content-Type", mediaEvents)
		case formRaw:
			setRawHeaders(header, contentType)
		default:
			header.Set("Content-Type", mediaLines)
		}
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no") // a buffering proxy would delay the messages
		e.writer.WriteHeader(http.StatusOK)
		if e.ticket != nil {
			// An id without data is not an event: a client that reconnects before the first event
			// sends this id.
			text = append(append(e.eventID(nil, e.ticket.Resume), '\n'), text...)
		}
	}
	if len(text) > 0 {
		if _, err := e.writer.Write(text); err != nil {
			return err
		}
	}
	return http.NewResponseController(e.writer).Flush()
}

// Send implements [connect.ServerStream].
func (e *events) Send(msg any) error {
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.form == formRaw {
		contentType, data, err := e.binding.rawAnswer(f.Data)
		if err != nil {
			return frame.NoJSON(err)
		}
		return e.write(data, contentType)
	}
	e.buffer = e.buffer[:0]
	if e.form == formEvents {
		if number := e.binding.method.EventIDField; number != 0 {
			if id, err := f.Text(number, ""); err == nil && id != "" {
				e.buffer = e.eventID(e.buffer, id)
			}
		}
		e.buffer = append(e.buffer, "data: "...)
	}
	var err error
	if e.buffer, err = e.binding.appendJSON(e.buffer, f.Data); err != nil {
		return frame.NoJSON(err)
	}
	e.buffer = append(e.buffer, '\n')
	if e.form == formEvents {
		e.buffer = append(e.buffer, '\n')
	}
	if e.keepAliveTimer != nil {
		e.keepAliveTimer.Reset(e.rest.keepAlive)
	}
	return e.write(e.buffer, "")
}

// begun implements [responder].
func (e *events) begun() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started
}

// finish writes a stream without messages.
func (e *events) finish(http.ResponseWriter) error {
	e.end(nil)
	return nil
}

// close stops the keep-alives. It must not run concurrently with other methods; only end may
// follow.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.keepAliveTimer != nil {
		e.keepAliveTimer.Stop()
	}
}

// end reports to the client how the stream ended: an error is the last event or line, with its
// details. The end of a raw body cannot be marked in its data: after an error the connection, or
// the HTTP/2 stream, is aborted, so that the client does not take a part for the whole.
func (e *events) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		_ = e.write(nil, "") // an error means that the client has disconnected
		return
	case e.form == formRaw:
		panic(http.ErrAbortHandler)
	}
	text := bytes.TrimSpace(e.rest.errorJSON(err))
	line := append(append([]byte(`{"error":`), text...), '}', '\n')
	if e.form == formEvents {
		line = append(append([]byte("event: error\ndata: "), line...), '\n')
	}
	_ = e.write(line, "") // an error means that the client has disconnected
}
