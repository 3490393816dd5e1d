package edge

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/gateway/frame"
)

// stream is the connect.ServerStream of a REST request.
type stream struct {
	binding   *binding
	values    []string
	request   *http.Request
	body      io.ReadCloser
	maxBody   int64
	encodings encodings
	query     *Query
	info      connect.CallInfo

	received bool
	hasBody  bool      // the body is not empty
	mask     []string  // paths of the body's fields, for an absent field mask
	requests *requests // of a client stream; nil: not begun
	ready    atomic.Bool
	onReady  func() // called when the request has been received; may be nil

	mu      sync.Mutex
	refused *httpError // the error of Receive; nil: it has not failed
}

// errNoMapping is the error of a message that is not a [frame.Frame].
var errNoMapping = connect.NewError(connect.CodeInternal, "the method has no REST mapping")

// Receive implements [connect.ServerStream].
func (s *stream) Receive(msg any) error {
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	several := s.binding.method.Spec.StreamType&connect.StreamTypeClient != 0
	if s.received && !several {
		return io.EOF
	}
	s.received = true
	var err error
	if several {
		f.Data, err = s.nextMessage()
	} else {
		f.Data, err = s.message()
	}
	if err != nil {
		return s.refuse(err)
	}
	if s.onReady != nil && !s.ready.Swap(true) {
		s.onReady()
	}
	return nil
}

// PathField returns the text of a string field in the request's path, "" for none.
func (s *stream) PathField(number protowire.Number) string {
	for i := range s.binding.parameters {
		if s.binding.parameters[i].text == number {
			return s.values[i]
		}
	}
	return ""
}

// unary answers with one message: a JSON body or, for a google.api.HttpBody, the body in it.
type unary struct {
	stream

	answer *[]byte // the body, in one of frame.Buffers; nil: none yet
	raw    string  // its content type; "": JSON
	tag    string  // its entity tag; "": none
}

// SendHeaders implements [connect.ServerStream]: a unary answer sends its headers with its body.
func (s *unary) SendHeaders() error { return nil }

// Send implements [connect.ServerStream].
func (s *unary) Send(msg any) error {
	f, ok := msg.(*frame.Frame)
	if !ok {
		return errNoMapping
	}
	if s.tagged() {
		s.tag = entityTag(f.Data, s.binding.method.ETag.Except)
	}
	answer := frame.Buffers.Get(f.Len() + f.Len()/2 + 1) // JSON is larger than wire bytes
	var err error
	if s.binding.rawAnswers {
		var data []byte
		if s.raw, data, err = s.binding.rawAnswer(f.Data); s.raw == "" {
			s.raw = "application/octet-stream"
		}
		*answer = append((*answer)[:0], data...)
	} else {
		*answer, err = s.binding.appendJSON((*answer)[:0], f.Data)
	}
	if err != nil {
		frame.Buffers.Put(answer)
		return frame.NoJSON(err)
	}
	s.answer = answer
	return nil
}

func (s *unary) begun() bool { return false }

func (s *unary) end(error) {}

// contentTypeJSON is the Content-Type header of all JSON answers; it must not be modified.
var contentTypeJSON = []string{mediaJSON}

func (s *unary) finish(w http.ResponseWriter) error {
	if s.answer == nil {
		return connect.NewError(connect.CodeInternal, "the call ended without an answer")
	}
	if s.raw != "" {
		setRawHeaders(w.Header(), s.raw)
	} else {
		w.Header()["Content-Type"] = contentTypeJSON
	}
	if s.tag != "" && s.unchanged(w) {
		frame.Buffers.Put(s.answer)
		return nil
	}
	if s.encodings.write(w, s.request, *s.answer) == nil {
		frame.Buffers.Put(s.answer) // otherwise a connection may still be writing it
	}
	return nil
}

// refuse returns the error of a request that cannot be parsed, and stores its HTTP status.
func (s *stream) refuse(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	known, _ := errors.AsType[*httpError](err)
	if known == nil {
		known = &httpError{error: err}
	}
	s.mu.Lock()
	s.refused = known
	s.mu.Unlock()
	if verdict, ok := errors.AsType[*connect.Error](err); ok {
		return verdict
	}
	return invalid(err)
}
