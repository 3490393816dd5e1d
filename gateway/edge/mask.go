package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/transcode"
)

// maxMask bounds the bytes of a field mask that is derived from a body.
const maxMask = 64 << 10

// maskField returns the number of the request's field mask that a PATCH fills from its body:
// update_mask, or the only field of that type; 0 for none.
func maskField(input protoreflect.MessageDescriptor) protowire.Number {
	var found protowire.Number
	fields := input.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() == nil || f.IsList() || f.Message().FullName() != "google.protobuf.FieldMask" {
			continue
		}
		if f.Name() == "update_mask" {
			return f.Number()
		}
		if found != 0 {
			return 0
		}
		found = f.Number()
	}
	return found
}

// maskOf returns the paths of the fields in a JSON body (AIP-134), except fields that the path sets.
// The body has already been parsed, under the name of its field.
func (s *stream) maskOf(body []byte) ([]string, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	m := masker{decoder: decoder, except: map[string]bool{}}
	for i := range s.binding.parameters {
		p := &s.binding.parameters[i]
		if s.binding.inBody(p) {
			_, rest, _ := strings.Cut(p.name, ".")
			m.except[rest] = true
		}
	}
	for range 2 { // the brace and the name of the body's field
		if _, err := decoder.Token(); err != nil {
			return nil, err
		}
	}
	if opener, err := decoder.Token(); err != nil || opener != json.Delim('{') {
		return nil, err // such as null
	}
	if err := m.walk(s.binding.bodyStep.field.Message(), ""); err != nil {
		return nil, err
	}
	return m.paths, nil
}

// masker collects the paths of a JSON object's members.
type masker struct {
	decoder *json.Decoder
	except  map[string]bool
	paths   []string
	size    int
}

// walk collects the members of an object whose opening brace has been read.
func (m *masker) walk(desc protoreflect.MessageDescriptor, prefix string) error {
	for m.decoder.More() {
		token, err := m.decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		f := transcode.Field(desc, name)
		if f == nil {
			return &fault{field: clip(name), reason: "it is not a field"} // not reached: the body has been parsed
		}
		path := prefix + string(f.Name())
		if inner := f.Message(); inner != nil && !f.IsList() && !f.IsMap() && !transcode.IsValue(inner) {
			before := len(m.paths)
			opener, err := m.decoder.Token()
			if err != nil {
				return err
			}
			if opener == json.Delim('{') {
				if err := m.walk(inner, path+"."); err != nil {
					return err
				}
			}
			if len(m.paths) > before {
				continue
			}
		} else if err := m.skip(); err != nil {
			return err
		}
		if m.except[path] {
			continue
		}
		m.paths = append(m.paths, path)
		if m.size += len(path); m.size > maxMask {
			return errors.New("the body has too many fields for a field mask: send the mask in the request")
		}
	}
	_, err := m.decoder.Token()
	return err
}

// skip skips a value.
func (m *masker) skip() error {
	depth := 0
	for {
		token, err := m.decoder.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// appendMask adds a field mask to a message.
func appendMask(wire []byte, number protowire.Number, paths []string) []byte {
	var mask []byte
	for _, path := range paths {
		mask = protowire.AppendString(protowire.AppendTag(mask, 1, protowire.BytesType), path)
	}
	return protowire.AppendBytes(protowire.AppendTag(wire, number, protowire.BytesType), mask)
}
