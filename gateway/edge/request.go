package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	mediaJSON = "application/json"
	// maxForeseen is the announced length up to which room is made at once.
	maxForeseen = 64 << 10
	// leastForeseen is what room is made for when no length is.
	leastForeseen = 512
	// foreseenTenant is room for a tenant that the pipeline fills in.
	foreseenTenant = 66
)

// message builds the request's wire bytes: the body first, then the query's and
// the path's fields. Protobuf merges what stands twice and lets the last win;
// the pipeline refuses a tenant or resource that is given twice and differs.
func (s *stream) message() (wire []byte, err error) {
	b := s.binding
	input := b.method.Input
	if b.body != "" {
		if wire, err = s.bodyWire(); err != nil {
			return nil, err
		}
	}
	if b.body != "*" {
		if wire, err = s.appendQuery(wire); err != nil {
			return nil, err
		}
	} else if s.request.URL.RawQuery != "" {
		return nil, errors.New("the path takes no query parameters: send every field in the body")
	}
	for i, value := range s.values {
		if wire, err = b.parameters[i].appendWire(wire, input, value); err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
	}
	return wire, nil
}

// bodyWire reads the body, and returns the wire bytes of what it is mapped to.
func (s *stream) bodyWire() ([]byte, error) {
	if contentType := s.request.Header.Get("Content-Type"); contentType != "" && contentType != mediaJSON {
		if media, _, err := mime.ParseMediaType(contentType); err != nil || media != mediaJSON {
			return nil, fmt.Errorf("the content type is %q: send %s", excerpt.Text(contentType, excerpt.Name), mediaJSON)
		}
	}
	room := leastForeseen
	if length := s.request.ContentLength; length > 0 && length <= maxForeseen {
		room += int(length)
	}
	// A body is read into memory that is used again: of its text nothing is kept.
	buffer := frame.Buffers.Get(room)
	defer frame.Buffers.Put(buffer)
	body, err := s.readBody((*buffer)[:0])
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if s.binding.body != "*" {
		if !json.Valid(body) { // it must not end the field that it is put into
			return nil, errors.New("the body is not a JSON value")
		}
		body = wrap([]string{s.binding.bodyName}, body)
	}
	return s.binding.method.Input.AppendWire(make([]byte, 0, len(body)+foreseenTenant), body)
}

// readBody appends the decompressed body to dst. A compressed body is read whole first, so
// that no decompressor is occupied while the body arrives.
func (s *stream) readBody(dst []byte) ([]byte, error) {
	compressor, err := s.encodings.of(s.request)
	if err != nil {
		return nil, err
	}
	if compressor == nil {
		return s.readWhole(dst, s.body, connect.CodeCanceled, "the body was cut off")
	}
	buffer := frame.Buffers.Get(leastForeseen)
	defer frame.Buffers.Put(buffer)
	packed, err := s.readWhole((*buffer)[:0], s.body, connect.CodeCanceled, "the body was cut off")
	if err != nil {
		return nil, err
	}
	malformed := "the body is not " + compressor.Name()
	plain, err := compressor.Decompress(bytes.NewReader(packed))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, malformed).WithCause(err)
	}
	defer func() { _ = plain.Close() }() // it has been read
	return s.readWhole(dst, plain, connect.CodeInvalidArgument, malformed)
}

// readWhole appends all of from, up to the bound of bodies. code and message are those of the
// error if the reader fails without a Connect error.
func (s *stream) readWhole(dst []byte, from io.Reader, code connect.Code, message string) ([]byte, error) {
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
		return nil, connect.Errorf(connect.CodeResourceExhausted, "the body is larger than %d bytes", s.maxBody)
	}
	if known, ok := errors.AsType[*connect.Error](err); ok {
		return nil, known
	}
	return nil, connect.NewError(code, message).WithCause(err)
}

// appendQuery adds the query's parameters, in the order of their names.
func (s *stream) appendQuery(wire []byte) ([]byte, error) {
	query, err := url.ParseQuery(s.request.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the query string is malformed: percent-encode its names and values, and separate them by &")
	}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p, err := newParameter(s.binding.method.Input.Descriptor(), name, transcode.Field)
		if err != nil {
			return nil, fmt.Errorf("query parameter: %w", err)
		}
		if given := len(query[name]); given > 1 && !p.path[len(p.path)-1].IsList() {
			return nil, fmt.Errorf("query parameter: %s is given %d times, and takes one value", p.name, given)
		}
		for _, value := range query[name] {
			if wire, err = p.appendWire(wire, s.binding.method.Input, value); err != nil {
				return nil, fmt.Errorf("query parameter: %w", err)
			}
		}
	}
	return wire, nil
}

// parameter is a field that is given as text, in the path or the query.
type parameter struct {
	name  string
	path  []protoreflect.FieldDescriptor
	names []string         // of the path, in JSON
	text  protowire.Number // of a string field of the request itself; 0: it is another
}

// newParameter returns the parameter of a path of field names, which find resolves.
func newParameter(input protoreflect.MessageDescriptor, name string, find finder) (parameter, error) {
	path, err := fieldPath(input, name, find)
	if err != nil {
		return parameter{}, err
	}
	p := parameter{name: name, path: path, names: make([]string, len(path))}
	for i, f := range path {
		if p.names[i] = transcode.Name(f); p.names[i] == "" {
			return parameter{}, fmt.Errorf("%q cannot be set: the names of %s are those of other fields", name, f.FullName())
		}
	}
	if len(path) == 1 && path[0].Kind() == protoreflect.StringKind && !path[0].IsList() {
		p.text = path[0].Number()
	}
	return p, nil
}

// appendWire adds the field.
func (p *parameter) appendWire(wire []byte, input *transcode.Program, value string) ([]byte, error) {
	if !utf8.ValidString(value) {
		return nil, fmt.Errorf("%s: the text is not valid UTF-8", p.name)
	}
	if p.text != 0 && value != "" {
		return protowire.AppendString(protowire.AppendTag(wire, p.text, protowire.BytesType), value), nil
	}
	text, err := parameterJSON(p.path[len(p.path)-1], value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	out, err := input.AppendWire(wire, wrap(p.names, text))
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not a value of its type", p.name, excerpt.Text(value, excerpt.Name))
	}
	return out, nil
}

// finder returns a message's field by a name, nil for none.
type finder func(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor

// byProtoName is the finder of path variables, which google.api.http names by proto names; a
// JSON name is accepted if it is no field's proto name. Query parameters are resolved as JSON
// members are, by [transcode.Field].
func byProtoName(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := message.Fields().ByName(protoreflect.Name(name)); f != nil {
		return f
	}
	return message.Fields().ByJSONName(name)
}

// fieldPath returns the fields of a path of names.
func fieldPath(message protoreflect.MessageDescriptor, name string, find finder) ([]protoreflect.FieldDescriptor, error) {
	var path []protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(name, ".") {
		if message == nil {
			return nil, fmt.Errorf("%q is not a field", excerpt.Text(name, excerpt.Name))
		}
		f := find(message, part)
		if f == nil || f.IsMap() {
			return nil, fmt.Errorf("%q is not a field of %s", excerpt.Text(name, excerpt.Name), message.FullName())
		}
		if len(path) > 0 && path[len(path)-1].IsList() {
			return nil, fmt.Errorf("%q leads through a list", excerpt.Text(name, excerpt.Name))
		}
		path = append(path, f)
		message = f.Message()
	}
	return path, nil
}

// parameterJSON renders a parameter's text as the JSON value of its field.
func parameterJSON(f protoreflect.FieldDescriptor, value string) ([]byte, error) {
	var text []byte
	switch {
	case f.Kind() == protoreflect.BoolKind:
		if value != "true" && value != "false" {
			return nil, fmt.Errorf("%q is not true or false", excerpt.Text(value, excerpt.Name))
		}
		text = []byte(value)
	case f.Kind() == protoreflect.EnumKind && value != "" && strings.Trim(value, "-0123456789") == "":
		text = []byte(value)
	default:
		// Numbers may stand in quotes, and the well-known types that a parameter
		// can be are strings in JSON.
		var err error
		if text, err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	if f.IsList() {
		text = slices.Concat([]byte("["), text, []byte("]"))
	}
	return text, nil
}

// wrap nests a JSON value under names.
func wrap(names []string, value []byte) []byte {
	for _, name := range slices.Backward(names) {
		value = slices.Concat([]byte(`{"`+name+`":`), value, []byte("}"))
	}
	return value
}
