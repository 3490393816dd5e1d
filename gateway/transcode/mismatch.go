package transcode

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/internal/excerpt"
)

// mismatch returns an error that quotes the value at a position, which is not one of the allowed
// values. If there is no value, the text is malformed: cause, if not nil, is the reason.
func (s *scanner) mismatch(at, depth int, allowed string, cause error) error {
	s.pos = at
	text, err := s.skip(min(depth, MaxDepth))
	if err != nil {
		if cause != nil {
			return cause
		}
		return err
	}
	return s.fail(at, "%s is not %s", text, limited(allowed))
}

// limited is text of a descriptor, which errors do not shorten like a request's texts.
type limited string

// within adds the name of the field, or the index in a list or map, to the error of its value.
func within(err error, name string) error {
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	switch {
	case syntax.Field == "":
		syntax.Field = name
	case len(syntax.Field) > excerpt.Name: // deep enough
	case syntax.Field[0] == '[':
		syntax.Field = name + syntax.Field
	default:
		syntax.Field = name + "." + syntax.Field
	}
	return err
}

// memberName returns the name of an unknown member, shortened for errors.
func memberName(name []byte) string {
	if len(name) == 0 {
		return `""`
	}
	return excerpt.Text(string(name), excerpt.Name)
}

// keyBefore returns the index of a map entry, whose key is at a position of the text.
func keyBefore(src []byte, at, end int) string {
	var key string
	if json.NewDecoder(strings.NewReader(string(src[at:end]))).Decode(&key) != nil {
		return "[…]" // not reached: the key has been read
	}
	return "[" + excerpt.Text(key, excerpt.Name) + "]"
}

// allowedEnums bounds the names of an enumeration that an error lists.
const allowedEnums = 20

// allowed describes the values of the field.
func (f *field) allowed() string {
	switch f.kind {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "a string"
	case protoreflect.BytesKind:
		return "a string in base64"
	case protoreflect.FloatKind:
		return "a 32-bit number"
	case protoreflect.DoubleKind:
		return "a number"
	case protoreflect.EnumKind:
		return f.enum.allowed
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return f.message.allowed()
	}
	sign, bits := "a ", "64"
	if isUnsigned(f.kind) {
		sign = "an unsigned "
	}
	if is32(f.kind) || f.kind == protoreflect.Fixed32Kind || f.kind == protoreflect.Sfixed32Kind {
		bits = "32"
	}
	return fmt.Sprintf("%s%s-bit integer", sign, bits)
}

// allowed describes the JSON values of the message.
func (p *Program) allowed() string {
	switch p.kind {
	case kindTimestamp:
		return `a timestamp such as "2026-01-31T12:00:00Z", with at most nine fractional digits`
	case kindDuration:
		return `a duration such as "1.5s"`
	case kindFieldMask:
		return `a field mask such as "name,inner.text"`
	case kindListValue:
		return "an array"
	case kindWrapper:
		return p.byNumber[1].allowed()
	}
	return "an object"
}

// allowedOf lists the names of an enumeration.
func allowedOf(desc protoreflect.EnumDescriptor) string {
	if desc.FullName() == "google.protobuf.NullValue" {
		return "null"
	}
	values := desc.Values()
	names := make([]string, 0, allowedEnums)
	for i := range min(values.Len(), allowedEnums) {
		names = append(names, string(values.Get(i).Name()))
	}
	if values.Len() > allowedEnums {
		names = append(names, "…")
	}
	return "one of " + strings.Join(names, ", ")
}
