package edge

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/frame"
	"google.golang.org/protobuf/encoding/protowire"
)

// stream is the call's view of a REST request.
type stream struct {
	binding   *binding
	values    []string
	request   *http.Request
	body      io.ReadCloser
	maxBody   int64
	encodings encodings
	received  bool
	info      connect.CallInfo
}

// errNoMapping says that a call moves something else than frames.
var errNoMapping = connect.NewError(connect.CodeInternal, "the method has no REST mapping")

// Receive implements [connect.ServerStream].
func (s *stream) Receive(msg any) error {
	if s.received {
		return io.EOF
	}
	s.received = true
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	data, err := s.message()
	if err != nil {
		var known *connect.Error
		if errors.As(err, &known) {
			return err
		}
		return connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	f.Data = data
	return nil
}

// PathField returns the text of a string field that the request's path has, "" for none.
func (s *stream) PathField(number protowire.Number) string {
	for i := range s.binding.parameters {
		if s.binding.parameters[i].text == number {
			return s.values[i]
		}
	}
	return ""
}

// single answers one message as a JSON body.
type single struct {
	stream

	answer *[]byte // JSON, in one of frame.Buffers; nil: none yet
}

// SendHeaders implements [connect.ServerStream]: a plain answer has its headers
// with its body.
func (s *single) SendHeaders() error { return nil }

// Send implements [connect.ServerStream].
func (s *single) Send(msg any) error {
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	answer := frame.Buffers.Get(f.Len() + f.Len()/2 + 1) // JSON takes more room
	text, err := s.binding.appendJSON((*answer)[:0], f.Data)
	*answer = text
	if err != nil {
		frame.Buffers.Put(answer)
		return frame.NoJSON(err)
	}
	s.answer = answer
	return nil
}

func (s *single) begun() bool { return false }

func (s *single) end(error) {}

// contentTypeJSON is every answer's header, which nothing changes.
var contentTypeJSON = []string{mediaJSON}

func (s *single) finish(w http.ResponseWriter) error {
	if s.answer == nil {
		return connect.NewError(connect.CodeInternal, "the call ended without an answer")
	}
	w.Header()["Content-Type"] = contentTypeJSON
	if s.encodings.write(w, s.request, *s.answer) == nil {
		frame.Buffers.Put(s.answer) // else a connection may still be writing it
	}
	return nil
}

// Media types of a stream of answers.
const (
	mediaEvents = "text/event-stream"
	mediaLines  = "application/x-ndjson"
)

// headerLastEvent resumes a stream of events (HTML, "Server-sent events",
// §9.2.4).
const headerLastEvent = "Last-Event-Id"

// acceptsEvents reports whether the client wants Server-Sent Events.
func acceptsEvents(req *http.Request) bool {
	for _, value := range req.Header.Values("Accept") {
		for part := range strings.SplitSeq(value, ",") {
			if media, _, err := mime.ParseMediaType(part); err == nil && media == mediaEvents {
				return true
			}
		}
	}
	return false
}

// events answers a stream of messages, each as soon as it is there: as
// Server-Sent Events, or as one JSON value a line.
type events struct {
	*stream
	writer  http.ResponseWriter
	sse     bool
	started bool
	buffer  []byte
}

// Receive implements [connect.ServerStream]: what the client has seen last
// resumes the stream.
func (e *events) Receive(msg any) error {
	if err := e.stream.Receive(msg); err != nil {
		return err
	}
	if last := e.request.Header.Get(headerLastEvent); last != "" && e.binding.method.ResumeField != 0 {
		if f, ok := msg.(*frame.Frame); ok {
			f.AppendText(e.binding.method.ResumeField, last)
		}
	}
	return nil
}

// SendHeaders implements [connect.ServerStream].
func (e *events) SendHeaders() error {
	if e.started {
		return nil
	}
	e.started = true
	header := e.writer.Header()
	copyHeaders(header, e.info.ResponseHeader())
	header.Set("Content-Type", mediaLines)
	if e.sse {
		header.Set("Content-Type", mediaEvents)
	}
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // a proxy that collects defeats a stream
	e.writer.WriteHeader(http.StatusOK)
	return http.NewResponseController(e.writer).Flush()
}

// Send implements [connect.ServerStream].
func (e *events) Send(msg any) error {
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	if err := e.SendHeaders(); err != nil {
		return err
	}
	e.buffer = e.buffer[:0]
	if e.sse {
		if number := e.binding.method.EventIDField; number != 0 {
			// An id with a line break would end the field, and a NUL is ignored by
			// clients: such an id is left out.
			if id, err := f.Text(number, ""); err == nil && id != "" && !strings.ContainsAny(id, "\r\n\x00") {
				e.buffer = append(append(append(e.buffer, "id: "...), id...), '\n')
			}
		}
		e.buffer = append(e.buffer, "data: "...)
	}
	var err error
	if e.buffer, err = e.binding.appendJSON(e.buffer, f.Data); err != nil {
		return frame.NoJSON(err)
	}
	e.buffer = append(e.buffer, '\n')
	if e.sse {
		e.buffer = append(e.buffer, '\n')
	}
	if _, err := e.writer.Write(e.buffer); err != nil {
		return err
	}
	return http.NewResponseController(e.writer).Flush()
}

func (e *events) begun() bool { return e.started }

// finish writes a stream without messages.
func (e *events) finish(http.ResponseWriter) error {
	e.end(nil)
	return nil
}

// end tells the client how the stream ended: with an error as the last event or
// line, or as asked.
func (e *events) end(err error) {
	if e.SendHeaders() != nil || err == nil {
		return // a client that is gone needs no end
	}
	known := chassis.Public(err)
	text, failed := json.Marshal(map[string]any{"error": map[string]string{"code": known.Code().String(), "message": known.Message()}})
	if failed != nil {
		return // two strings always have JSON
	}
	line := string(text) + "\n"
	if e.sse {
		line = "event: error\ndata: " + line + "\n"
	}
	_, _ = io.WriteString(e.writer, line) // the client is gone if this fails
}
