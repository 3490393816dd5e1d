package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
)

const (
	mediaJSON = "application/json"
	// maxPreallocated bounds the memory that is allocated for an announced length.
	maxPreallocated = 64 << 10
	// defaultPreallocated is the memory that is allocated when no length is announced.
	defaultPreallocated = 512
	// tenantHeadroom is reserved for a tenant that the pipeline fills in.
	tenantHeadroom = 66
)

// message builds the request's wire bytes: first the fields of the body, then those of the query
// and the path. If two of them set a field, its values must be equal.
func (s *stream) message() (wire []byte, err error) {
	b := s.binding
	if b.body != "" {
		if wire, err = s.bodyWire(); err != nil {
			return nil, err
		}
	} else if err := s.rejectBody(); err != nil {
		return nil, err
	}
	return s.complete(wire)
}

// complete appends the fields of path and query to the wire bytes of a body.
func (s *stream) complete(wire []byte) ([]byte, error) {
	body := len(wire)
	wire, masked, err := s.appendQuery(wire)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(s.request.URL.Path) { // in segments without a variable
		return nil, &fault{in: inPath, reason: "the text is not valid UTF-8"}
	}
	b := s.binding
	if body > 0 && len(wire) > body {
		if field, conflict := overlap(
			b.method.Input.Descriptor(), wire[:body], wire[body:], b.method.TenantField,
		); conflict != "" {
			return nil, &fault{inPath, field, conflict}
		}
		for i := range b.parameters {
			// A zero value in the path is not on the wire, and would be overridden by the body's.
			if p := &b.parameters[i]; !isSet(wire[body:], p.steps) && isSet(wire[:body], p.steps) {
				return nil, &fault{inPath, p.name, setByBody}
			}
		}
	}
	if len(s.mask) > 0 && !masked {
		wire = appendMask(wire, b.mask, s.mask)
	}
	return wire, nil
}

// rejectBody rejects a body if the rule has none.
func (s *stream) rejectBody() error {
	if s.request.ContentLength == 0 || s.request.Body == http.NoBody {
		return nil
	}
	var one [1]byte
	n, err := io.ReadFull(s.body, one[:])
	switch {
	case n > 0:
		return errors.New("the path takes no body: send the fields in the path and the query")
	case errors.Is(err, io.EOF):
		return nil
	}
	return bodyFailed(s.request, err)
}

// bodyFailed returns the Connect error for a body that cannot be read: INVALID_ARGUMENT if its
// chunks are malformed (RFC 9112 §7.1), CANCELED if the client has gone. Connect errors are
// returned unchanged.
func bodyFailed(r *http.Request, err error) error {
	if known, ok := errors.AsType[*connect.Error](err); ok {
		return known
	}
	// net/http has no type for malformed chunks: the other errors of a chunked body are those of its connection.
	_, ofConnection := errors.AsType[net.Error](err)
	gone := ofConnection || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) || r.Context().Err() != nil
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 && !gone {
		return connect.NewError(connect.CodeInvalidArgument, "the body's chunked encoding is malformed").WithCause(err)
	}
	return connect.NewError(connect.CodeCanceled, "the body was cut off").WithCause(err)
}

// bodyWire reads the body, and returns the wire bytes of the message or field that it is mapped to.
func (s *stream) bodyWire() ([]byte, error) {
	raw := s.binding.rawBody
	refusal := error(nil)
	if !raw {
		refusal = s.checkMedia(mediaJSON)
	}
	if refusal != nil && s.request.ContentLength > 0 {
		return nil, refusal
	}
	room := defaultPreallocated
	if length := s.request.ContentLength; length > 0 && length <= maxPreallocated {
		room += int(length)
	}
	// The buffer is reused: nothing may reference its text.
	buffer := frame.Buffers.Get(room)
	defer frame.Buffers.Put(buffer)
	body, err := s.readBody((*buffer)[:0])
	switch {
	case err != nil:
		return nil, err
	case raw:
		s.hasBody = true
		return s.rawWire(body), nil
	case len(body) == 0:
		return nil, nil
	case refusal != nil:
		return nil, refusal
	}
	s.hasBody = true
	return s.jsonWire(body)
}

// jsonWire returns the wire bytes of a JSON body.
func (s *stream) jsonWire(body []byte) ([]byte, error) {
	b := s.binding
	var prefix string
	if b.body != "*" {
		if !json.Valid(body) { // an invalid body must not close the object that it is put into
			return nil, errors.New("the body is not a JSON value")
		}
		prefix = b.bodyStep.key
		body = slices.Concat([]byte("{"), quote(prefix), []byte(":"), body, []byte("}"))
	}
	wire, err := b.method.Input.AppendWire(make([]byte, 0, len(body)+tenantHeadroom), body)
	if err == nil && b.mask != 0 {
		s.mask, err = s.maskOf(body)
	}
	if syntax, ok := errors.AsType[*transcode.SyntaxError](err); ok && prefix != "" && syntax.Line == 1 {
		syntax.Column -= len(`{"":`) + len(prefix) // text that the client has not written
	}
	return wire, err
}

// checkMedia returns an error for a content type that is not accepted.
func (s *stream) checkMedia(accepted ...string) error {
	contentType := s.request.Header.Get("Content-Type")
	if contentType == "" || slices.Contains(accepted, contentType) {
		return nil
	}
	if media, _, err := mime.ParseMediaType(contentType); err == nil && slices.Contains(accepted, media) {
		return nil
	}
	wrong := fmt.Errorf("the content type is %q: send %s", excerpt.Text(contentType, excerpt.Name), accepted[0])
	return &httpError{
		error:  wrong,
		status: http.StatusUnsupportedMediaType,
		header: "Accept",
		value:  accepted[0],
	}
}

// readBody appends the decompressed body to dst. It reads a compressed body completely before it
// decompresses it, so that no decompressor is occupied while the body arrives.
func (s *stream) readBody(dst []byte) ([]byte, error) {
	compressor, err := s.encodings.of(s.request)
	if err != nil {
		if s.request.ContentLength == 0 {
			return dst, nil
		}
		return nil, &httpError{
			error:  err,
			status: http.StatusUnsupportedMediaType,
			header: headerAcceptEncoding,
			value:  s.encodings.names(),
		}
	}
	if compressor == nil {
		return s.readWhole(dst, s.body, func(err error) error { return bodyFailed(s.request, err) })
	}
	buffer := frame.Buffers.Get(defaultPreallocated)
	defer frame.Buffers.Put(buffer)
	packed, err := s.readWhole((*buffer)[:0], s.body, func(err error) error { return bodyFailed(s.request, err) })
	if err != nil || len(packed) == 0 {
		return dst, err
	}
	malformed := func(err error) error {
		return connect.NewError(connect.CodeInvalidArgument, "the body is not "+compressor.Name()).WithCause(err)
	}
	plain, err := compressor.Decompress(bytes.NewReader(packed))
	if err != nil {
		return nil, malformed(err)
	}
	defer func() { _ = plain.Close() }() // it has been read
	return s.readWhole(dst, plain, malformed)
}

// readWhole appends all of from, up to the bound of bodies. failed returns the error if the reader
// fails without a Connect error.
func (s *stream) readWhole(dst []byte, from io.Reader, failed func(error) error) ([]byte, error) {
	var err error
	for err == nil && int64(len(dst)) <= s.maxBody {
		dst = slices.Grow(dst, 1)
		var n int
		n, err = from.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
	}
	whole := int64(len(dst)) <= s.maxBody
	if whole && errors.Is(err, io.EOF) {
		return dst, nil
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge || !whole {
		return nil, s.tooLarge()
	}
	if known, ok := errors.AsType[*connect.Error](err); ok {
		return nil, known
	}
	return nil, failed(err)
}

// tooLarge returns the error of a body, or of a message of a stream, beyond the bound.
func (s *stream) tooLarge() error {
	err := connect.Errorf(connect.CodeResourceExhausted, "the body is larger than %d bytes", s.maxBody)
	return &httpError{error: err, status: http.StatusRequestEntityTooLarge}
}

// setByBody is the reason of a field that body and path set to different values.
const setByBody = "the body sets it to another value"

// isSet reports whether a message's wire bytes have the field that the steps lead to.
func isSet(wire []byte, steps []step) bool {
	for len(wire) > 0 {
		number, wireType, tag, size := transcode.ConsumeField(wire)
		if size < 0 {
			return false // not reached: it was transcoded
		}
		if number == steps[0].number {
			if len(steps) == 1 {
				return true
			}
			if inner, n := protowire.ConsumeBytes(wire[tag : tag+size]); wireType == protowire.BytesType && n > 0 &&
				isSet(inner, steps[1:]) {
				return true
			}
		}
		wire = wire[tag+size:]
	}
	return false
}

// overlap finds a field that the path sets although the body sets it to another value, or sets
// another field of its oneof, and returns the reason; "": there is none. Both are wire bytes of the
// message; except is a field that the pipeline itself compares.
func overlap(desc protoreflect.MessageDescriptor, body, path []byte, except protowire.Number) (field, conflict string) {
	for len(path) > 0 {
		number, wireType, tag, size := transcode.ConsumeField(path)
		if size < 0 {
			return "", "" // not reached: the edge wrote it
		}
		value := path[tag : tag+size]
		path = path[tag+size:]
		f := desc.Fields().ByNumber(number)
		if f == nil || number == except {
			continue
		}
		oneof := f.ContainingOneof()
		for rest := body; len(rest) > 0; {
			n, t, tag, size := transcode.ConsumeField(rest)
			if size < 0 {
				return "", "" // not reached: it was transcoded
			}
			other := rest[tag : tag+size]
			rest = rest[tag+size:]
			switch g := desc.Fields().ByNumber(n); {
			case n == number && f.Message() != nil && !f.IsList() && !f.IsMap() && t == wireType &&
				!transcode.IsValue(f.Message()):
				inner, _ := protowire.ConsumeBytes(other)
				added, _ := protowire.ConsumeBytes(value)
				if field, conflict = overlap(f.Message(), inner, added, 0); conflict != "" {
					if field != "" {
						field = "." + field
					}
					return string(f.Name()) + field, conflict
				}
			case n == number && !bytes.Equal(other, value):
				return string(f.Name()), setByBody
			case n != number && g != nil && oneof != nil && g.ContainingOneof() == oneof:
				return string(f.Name()), fmt.Sprintf(
					"it cannot be set together with another field of its oneof: %s of the body", g.Name(),
				)
			}
		}
	}
	return "", ""
}
