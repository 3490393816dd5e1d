package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
)

// parameter is a field whose value is text of the path or the query.
type parameter struct {
	name  string // as written in the template or the query
	steps []step
	text  protowire.Number // number of a string field of the request itself; 0: another field
}

// step leads from a message to one of its fields, or from a map to one of its entries.
type step struct {
	key    string                       // the member's name in JSON, or the map's key
	field  protoreflect.FieldDescriptor // the field; of an entry, the field of the map's values
	oneof  protoreflect.OneofDescriptor // the oneof of the field; nil: none
	ofMap  bool                         // the step is an entry of a map
	number protowire.Number             // number of the field; 0: the step is an entry
}

// stepTo returns the step to a field; its key is "" if the field cannot be named in JSON.
func stepTo(f protoreflect.FieldDescriptor) step {
	s := step{key: transcode.Name(f), field: f, number: f.Number()}
	if oneof := f.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
		s.oneof = oneof
	}
	return s
}

// last returns the field that the parameter sets.
func (p *parameter) last() step { return p.steps[len(p.steps)-1] }

// isList reports whether the parameter may occur several times.
func (p *parameter) isList() bool { return !p.last().ofMap && p.last().field.IsList() }

// fault describes an invalid parameter or field of a request, in the words that
// [transcode.SyntaxError] uses for a body.
type fault struct {
	in     string // "query parameter", "path" or ""
	field  string
	reason string
}

// Error implements error.
func (f *fault) Error() string {
	text := f.reason
	if f.field != "" {
		text = f.field + ": " + text
	}
	if f.in != "" {
		text = f.in + ": " + text
	}
	return text
}

// Places of a [fault].
const (
	inPath  = "path"
	inQuery = "query parameter"
)

// finder returns a message's field by a name, nil for none.
type finder func(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor

// byProtoName finds the fields of path variables, which google.api.http names by proto names; a
// JSON name is accepted unless it is another field's proto name. Query parameters are resolved like
// JSON members, by [transcode.Field].
func byProtoName(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := message.Fields().ByName(protoreflect.Name(name)); f != nil {
		return f
	}
	return message.Fields().ByJSONName(name)
}

// newParameter returns the parameter for a path of field names, which find resolves. An entry of a
// map is written with its key in brackets: labels[color].
func newParameter(input protoreflect.MessageDescriptor, name string, find finder) (parameter, error) {
	p := parameter{name: name}
	message := input
	for rest := name; ; {
		switch {
		case message == nil:
			return p, errors.New("it is not a field")
		case len(p.steps) >= transcode.MaxDepth:
			return p, fmt.Errorf("it leads through more than %d messages", transcode.MaxDepth)
		}
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		f := find(message, rest[:end])
		if f == nil {
			return p, fmt.Errorf("it is not a field of %s", message.FullName())
		}
		if transcode.Name(f) == "" {
			return p, fmt.Errorf("it cannot be set: both names of %s are names of other fields", f.FullName())
		}
		p.steps = append(p.steps, stepTo(f))
		if rest = rest[end:]; f.IsMap() {
			key, after, err := mapKey(rest, clip(strings.TrimSuffix(name, rest)))
			if err != nil {
				return p, err
			}
			rest, f = after, f.MapValue()
			p.steps = append(p.steps, step{key: key, field: f, ofMap: true})
		} else if strings.HasPrefix(rest, "[") {
			return p, fmt.Errorf("it is not a field: %s is not a map", f.FullName())
		}
		if rest == "" {
			break
		}
		if f.IsList() {
			return p, errors.New("it leads through a list")
		}
		if message = f.Message(); message != nil && transcode.IsValue(message) {
			return p, fmt.Errorf("it leads into a %s, which is one value", message.FullName())
		}
		rest = rest[1:]
	}
	if f := p.last().field; f.Message() != nil && !transcode.IsValue(f.Message()) {
		if f.IsList() {
			return p, errors.New("it is a list of messages: send it in a body")
		}
		return p, fmt.Errorf("it is a message: send its fields, such as %s", exampleOf(clip(name), f.Message()))
	}
	if f := p.last().field; len(p.steps) == 1 && f.Kind() == protoreflect.StringKind && !f.IsList() {
		p.text = f.Number()
	}
	return p, nil
}

// exampleOf returns the name of a field of a message, for error messages.
func exampleOf(name string, message protoreflect.MessageDescriptor) string {
	if message.Fields().Len() == 0 {
		return name
	}
	return name + "." + string(message.Fields().Get(0).Name())
}

// mapKey returns the key in brackets at the start of a text, and the text after it. The key ends at
// the first closing bracket that a dot or the end follows.
func mapKey(text, name string) (key, rest string, err error) {
	if !strings.HasPrefix(text, "[") {
		return "", "", fmt.Errorf("it is a map: name an entry of it, such as %s[key]", name)
	}
	for end := 1; end < len(text); end++ {
		if text[end] == ']' && (end == len(text)-1 || text[end+1] == '.') {
			return text[1:end], text[end+1:], nil
		}
	}
	return "", "", errors.New("it has a [ that is not closed")
}

// appendWire appends the field with its value to a message.
func (p *parameter) appendWire(wire []byte, input *transcode.Program, in, value string) ([]byte, error) {
	if !utf8.ValidString(value) {
		return nil, &fault{in, p.name, "the text is not valid UTF-8"}
	}
	if p.text != 0 && value != "" {
		return protowire.AppendString(protowire.AppendTag(wire, p.text, protowire.BytesType), value), nil
	}
	text, err := p.json(in, value)
	if err != nil {
		return nil, err
	}
	if p.isList() {
		text = slices.Concat([]byte("["), text, []byte("]"))
	}
	for _, s := range slices.Backward(p.steps) {
		text = slices.Concat([]byte("{"), quote(s.key), []byte(":"), text, []byte("}"))
	}
	out, err := input.AppendWire(wire, text)
	if err != nil {
		return nil, &fault{in, p.name, reasonOf(err)}
	}
	return out, nil
}

// reasonOf returns the reason that a value cannot be transcoded. It omits the position, which counts in
// JSON that the gateway has made of the parameter.
func reasonOf(err error) string {
	var syntax *transcode.SyntaxError
	if errors.As(err, &syntax) {
		return syntax.Message
	}
	return err.Error()
}

// json returns a value's text as the JSON of the parameter's field. Values of types with any JSON
// (google.protobuf.Struct, ListValue, Value, Any, Empty) are given as JSON; values of other types
// as their JSON without quotes.
func (p *parameter) json(in, value string) ([]byte, error) {
	f := p.last().field
	kind, enum := f.Kind(), f.Enum()
	if message := f.Message(); message != nil {
		if transcode.IsJSON(message) {
			if !json.Valid([]byte(value)) {
				return nil, &fault{in, p.name, fmt.Sprintf("%q is not JSON", excerpt.Text(value, excerpt.Name))}
			}
			return []byte(value), nil
		}
		if wrapped := transcode.Wrapped(message); wrapped != nil {
			kind, enum = wrapped.Kind(), wrapped.Enum()
		}
	}
	switch {
	case kind == protoreflect.BoolKind && (value == "true" || value == "false"),
		kind == protoreflect.EnumKind && value != "" && strings.Trim(value, "-0123456789") == "" &&
			json.Valid([]byte(value)),
		enum != nil && enum.FullName() == "google.protobuf.NullValue" && value == "null":
		return []byte(value), nil
	}
	return quote(value), nil
}

// quote returns a text as a JSON string.
func quote(text string) []byte {
	out, err := json.Marshal(text)
	if err != nil {
		return []byte(`""`) // not reached: every string has a JSON form
	}
	return out
}
