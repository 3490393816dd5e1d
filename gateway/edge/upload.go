package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/rpc"
)

// mediaLines is the media type of a sequence of JSON values, by convention one per line.
const mediaLines = "application/x-ndjson"

// chunkBytes is the size of the chunks into which a body of any content type is split.
const chunkBytes = 64 << 10

// requests reads the messages of a client stream from a body: each JSON value is a message and, for
// a google.api.HttpBody, each chunk of the body. The fields of path and query are set in each
// message.
type requests struct {
	decoder *json.Decoder // nil: not JSON
	bounded boundedReader
	count   int
}

// boundedReader bounds the bytes that are read for one message.
type boundedReader struct {
	from io.Reader
	left int64
}

// errMessage is the error of a message beyond the bound.
var errMessage = errors.New("the message is too large")

// Read implements [io.Reader].
func (r *boundedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errMessage
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// begin checks the headers of the body.
func (s *stream) begin() error {
	if compressor, err := s.encodings.of(s.request); err != nil || compressor != nil {
		// A decompressor would be occupied for the whole duration of the stream.
		wrong := connect.NewError(connect.CodeUnimplemented,
			"a client stream cannot have a content encoding: send it uncompressed")
		return &httpError{
			error:  wrong,
			status: http.StatusUnsupportedMediaType,
			header: headerAcceptEncoding,
			value:  connect.CompressionNameIdentity,
		}
	}
	s.requests = &requests{bounded: boundedReader{from: s.request.Body}}
	if s.binding.rawBody {
		return nil
	}
	if err := s.checkMedia(mediaLines, mediaJSON); err != nil {
		return err
	}
	s.requests.decoder = json.NewDecoder(&s.requests.bounded)
	return nil
}

// nextMessage returns the wire bytes of the next message, or io.EOF.
func (s *stream) nextMessage() ([]byte, error) {
	if s.requests == nil {
		if err := s.begin(); err != nil {
			return nil, err
		}
	}
	wire, err := s.nextBody()
	if errors.Is(err, io.EOF) && s.requests.count == 0 {
		// Without messages, the fields of path and query are still validated.
		if _, wrong := s.complete(nil); wrong != nil {
			return nil, wrong
		}
	}
	if err != nil {
		return nil, err
	}
	s.requests.count++
	rpc.MessageRead(s.request.Context())
	return s.complete(wire)
}

// nextBody returns the wire bytes of the next chunk of the body.
func (s *stream) nextBody() ([]byte, error) {
	r := s.requests
	r.bounded.left = s.maxBody
	if r.decoder == nil {
		chunk := make([]byte, chunkBytes)
		n, err := r.bounded.Read(chunk)
		if n == 0 && err != nil && (!errors.Is(err, io.EOF) || r.count > 0) {
			return nil, s.bodyError(err)
		}
		return s.rawWire(chunk[:n]), nil // an empty body is one message
	}
	var text json.RawMessage
	err := r.decoder.Decode(&text)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the body is not a sequence of JSON values: send one per line")
	default:
		return nil, s.bodyError(err)
	}
	s.hasBody = true
	wire, err := s.jsonWire(text)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", r.count+1, err) // its line is that of the message
	}
	return wire, nil
}

// bodyError returns the error of a body that cannot be read further.
func (s *stream) bodyError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, errMessage):
		return s.tooLarge()
	}
	return bodyFailed(s.request, err)
}
