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

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	mediaJSON = "application/json"
	// maxForeseen is the announced length up to which room is made at once.
	maxForeseen = 64 << 10
	// foreseenTenant is room for a tenant that the pipeline fills in.
	foreseenTenant = 66
)

// message builds the request's wire bytes: the body first, then the query's and
// the path's fields. Protobuf merges what stands twice and lets the last win;
// the pipeline refuses a tenant or resource that is given twice and differs.
func (s *stream) message() ([]byte, error) {
	b := s.binding
	input := b.method.Input
	body, err := s.readBody()
	if err != nil {
		return nil, err
	}
	var wire []byte
	if len(body) > 0 {
		if b.body != "*" {
			body = wrap([]string{b.body}, body)
		}
		if wire, err = input.AppendWire(make([]byte, 0, len(body)+foreseenTenant), body); err != nil {
			return nil, err
		}
	}
	if b.body != "*" {
		if wire, err = s.appendQuery(wire); err != nil {
			return nil, err
		}
	} else if s.request.URL.RawQuery != "" {
		return nil, errors.New("this path takes no query parameters: everything is in the body")
	}
	for i, v := range b.template.variables {
		if wire, err = s.appendParameter(wire, v.field, s.values[i]); err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
	}
	return wire, nil
}

func (s *stream) readBody() ([]byte, error) {
	if s.binding.body == "" {
		return nil, nil
	}
	if contentType := s.request.Header.Get("Content-Type"); contentType != "" && contentType != mediaJSON {
		if media, _, err := mime.ParseMediaType(contentType); err != nil || media != mediaJSON {
			return nil, fmt.Errorf("the body is %q, want %s", contentType, mediaJSON)
		}
	}
	plain, err := s.encodings.decode(s.request, s.body)
	if err != nil {
		return nil, err
	}
	body, err := s.readAll(plain)
	_ = plain.Close() // it has been read, and its source is the server's to close
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, connect.Errorf(connect.CodeResourceExhausted, "the body is larger than %d bytes", s.maxBody)
	}
	if err != nil && plain != s.body {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "the body is not %s", s.request.Header.Get("Content-Encoding")).WithCause(err)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeCanceled, "the body was cut off").WithCause(err)
	}
	return body, nil
}

// readAll reads the body, which is bounded once more when it is not compressed any
// more.
func (s *stream) readAll(plain io.Reader) ([]byte, error) {
	room := bytes.MinRead
	if length := s.request.ContentLength; length > 0 && length <= maxForeseen {
		room += int(length)
	}
	body := bytes.NewBuffer(make([]byte, 0, room))
	n, err := body.ReadFrom(&io.LimitedReader{R: plain, N: s.maxBody + 1})
	if err == nil && n > s.maxBody {
		err = &http.MaxBytesError{Limit: s.maxBody}
	}
	return body.Bytes(), err
}

// appendQuery adds the query's parameters, in the order of their names.
func (s *stream) appendQuery(wire []byte) ([]byte, error) {
	query, err := url.ParseQuery(s.request.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the query cannot be read")
	}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range query[name] {
			if wire, err = s.appendParameter(wire, name, value); err != nil {
				return nil, fmt.Errorf("query: %w", err)
			}
		}
	}
	return wire, nil
}

// appendParameter adds one field, given as text.
func (s *stream) appendParameter(wire []byte, name, value string) ([]byte, error) {
	path, err := fieldPath(s.binding.method.Input.Descriptor(), name)
	if err != nil {
		return nil, err
	}
	leaf := path[len(path)-1]
	text, err := parameterJSON(leaf, value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	names := make([]string, len(path))
	for i, f := range path {
		names[i] = string(f.Name())
	}
	out, err := s.binding.method.Input.AppendWire(wire, wrap(names, text))
	if err != nil {
		return nil, fmt.Errorf("%s: %q cannot be used", name, value)
	}
	return out, nil
}

// fieldPath finds a field by its path of proto or JSON names.
func fieldPath(message protoreflect.MessageDescriptor, name string) ([]protoreflect.FieldDescriptor, error) {
	var path []protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(name, ".") {
		if message == nil {
			return nil, fmt.Errorf("%q is no field", name)
		}
		f := message.Fields().ByName(protoreflect.Name(part))
		if f == nil {
			f = message.Fields().ByJSONName(part)
		}
		if f == nil || f.IsMap() {
			return nil, fmt.Errorf("%q is no field of %s", name, message.FullName())
		}
		if len(path) > 0 && path[len(path)-1].IsList() {
			return nil, fmt.Errorf("%q leads through a list", name)
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
			return nil, fmt.Errorf("%q is not true or false", value)
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
