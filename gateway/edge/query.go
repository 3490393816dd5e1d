package edge

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
)

// Query configures how query strings are parsed.
type Query struct {
	// Ignored are the names of parameters that are ignored; a final * matches every name with that
	// prefix: "utm_*".
	Ignored []string
}

// Validate returns an error that names a pattern that cannot match a parameter.
func (q Query) Validate() error {
	for _, pattern := range q.Ignored {
		if name := strings.TrimSuffix(pattern, "*"); name == "" || strings.ContainsAny(name, "*&=") {
			return fmt.Errorf("%q is neither the name of a query parameter nor a prefix with a final *", pattern)
		}
	}
	return nil
}

// ignores reports whether a parameter is ignored.
func (q Query) ignores(name string) bool {
	for _, pattern := range q.Ignored {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(name, prefix) || pattern == name {
			return true
		}
	}
	return false
}

// next returns the first parameter of a raw query string that is not ignored, decoded, and the rest
// of the string; more is false at the end.
func (q Query) next(raw string) (name, value, rest string, more bool, err error) {
	for raw != "" {
		var part string
		if part, raw, _ = strings.Cut(raw, "&"); part == "" {
			continue
		}
		if strings.Contains(part, ";") {
			return "", "", "", false, &fault{
				in:     "query",
				reason: "it has a semicolon: separate parameters by &, and percent-encode the semicolons of values",
			}
		}
		name, value, _ = strings.Cut(part, "=")
		if name, err = url.QueryUnescape(name); err == nil {
			if q.ignores(name) {
				continue
			}
			value, err = url.QueryUnescape(value)
		}
		switch {
		case err != nil:
			return "", "", "", false, &fault{
				in:     "query",
				reason: "the query string is malformed: percent-encode its names and values, and separate them by &",
			}
		case !utf8.ValidString(name):
			return "", "", "", false, &fault{
				in:     inQuery,
				field:  fmt.Sprintf("%+q", clip(name)),
				reason: "it is not a field: the name is not valid UTF-8",
			}
		case !utf8.ValidString(value):
			return "", "", "", false, &fault{in: inQuery, field: clip(name), reason: "the text is not valid UTF-8"}
		}
		return name, value, raw, true, nil
	}
	return "", "", "", false, nil
}

// clip returns a name shortened for errors.
func clip(name string) string {
	if name == "" {
		return `""`
	}
	return excerpt.Text(name, excerpt.Name)
}

// fields are the fields of a message that parameters set, as a tree. Fields that are set twice, by
// path and query too, are detected when they are added. The JSON of the whole tree is parsed like a
// body, so that the same rules apply.
type fields struct {
	members []*member
	byKey   map[string]*member // index of members, once there are more than linearMembers
}

// member is a field, or an entry of a map.
type member struct {
	step   step
	source string   // what set it: a parameter's name, "the path" or "the body"
	inner  *fields  // of a message or map; nil: a value
	values [][]byte // JSON; several for a list
}

// linearMembers is the number of members up to which a linear search is used.
const linearMembers = 8

func (f *fields) find(key string) *member {
	if f.byKey != nil {
		return f.byKey[key]
	}
	for _, m := range f.members {
		if m.step.key == key {
			return m
		}
	}
	return nil
}

func (f *fields) insert(m *member) {
	f.members = append(f.members, m)
	if len(f.members) <= linearMembers {
		return
	}
	if f.byKey == nil {
		f.byKey = map[string]*member{}
		for _, known := range f.members {
			f.byKey[known.step.key] = known
		}
	}
	f.byKey[m.step.key] = m
}

// add sets the parameter's field to a value from a source, such as the path. It returns the source that
// had set the field before, "" if it was not set.
func (f *fields) add(p *parameter, value []byte, source string) (before string) {
	for i, s := range p.steps {
		final := i == len(p.steps)-1
		m := f.find(s.key)
		switch {
		case m == nil:
			m = &member{step: s, source: source}
			if !final {
				m.inner = &fields{}
			}
			f.insert(m)
		case m.inner == nil && (!final || !p.isList() || m.source == sourceBody):
			return m.source
		}
		if final {
			m.values = append(m.values, value)
			return ""
		}
		f = m.inner
	}
	return ""
}

// Sources of a member.
const (
	sourcePath = "the path"
	sourceBody = "the body"
)

// conflict returns a field of the message and a member of the same oneof that is set too; nil:
// none.
func (f *fields) conflict() (first, second *member) {
	var oneofs map[protoreflect.FullName]*member
	for _, m := range f.members {
		if oneof := m.step.oneof; oneof != nil {
			if other := oneofs[oneof.FullName()]; other != nil {
				return other, m
			}
			if oneofs == nil {
				oneofs = map[protoreflect.FullName]*member{}
			}
			oneofs[oneof.FullName()] = m
		}
		if m.inner != nil {
			if first, second := m.inner.conflict(); first != nil {
				return first, second
			}
		}
	}
	return nil, nil
}

// appendJSON appends the fields as a JSON object.
func (f *fields) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	first := true
	for _, m := range f.members {
		if m.source == sourceBody {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(dst, quote(m.step.key)...), ':')
		switch {
		case m.inner != nil:
			dst = m.inner.appendJSON(dst)
		case !m.step.ofMap && m.step.field.IsList():
			dst = append(append(append(dst, '['), slices.Concat(joined(m.values)...)...), ']')
		default:
			dst = append(dst, m.values[0]...)
		}
	}
	return append(dst, '}')
}

// joined joins values with commas.
func joined(values [][]byte) [][]byte {
	out := make([][]byte, 0, 2*len(values))
	for i, value := range values {
		if i > 0 {
			out = append(out, []byte{','})
		}
		out = append(out, value)
	}
	return out
}

// appendQuery appends the fields that the path and the query set. If there is a query string, both
// form one JSON object, which is parsed like a body. masked reports whether the query set the
// binding's field mask.
func (s *stream) appendQuery(wire []byte) (_ []byte, masked bool, err error) {
	b := s.binding
	name, value, rest, more, err := s.query.next(s.request.URL.RawQuery)
	if err != nil {
		return nil, false, err
	}
	if !more {
		wire, err = s.appendPath(wire, func(*parameter) bool { return true })
		return wire, false, err
	}
	if b.body == "*" {
		return nil, false, &fault{
			inQuery, clip(name), "the path takes no query parameters: send every field in the body",
		}
	}
	if wire, err = s.appendPath(wire, b.inBody); err != nil {
		return nil, false, err
	}
	all := &fields{}
	if b.bodyStep.number != 0 {
		all.insert(&member{step: b.bodyStep, source: sourceBody})
	}
	for i := range b.parameters {
		p := &b.parameters[i]
		if b.inBody(p) {
			continue
		}
		text, err := s.pathJSON(p, s.values[i])
		if err != nil {
			return nil, false, err
		}
		if before := all.add(p, text, sourcePath); before != "" {
			return nil, false, &fault{inPath, p.name, "the field is set twice"}
		}
	}
	for ; more; name, value, rest, more, err = s.query.next(rest) {
		p, wrong := newParameter(b.method.Input.Descriptor(), name, transcode.Field)
		if wrong != nil {
			return nil, false, &fault{inQuery, clip(name), wrong.Error()}
		}
		text, wrong := p.json(inQuery, value)
		if wrong != nil {
			return nil, false, wrong
		}
		if before := all.add(&p, text, name); before != "" {
			return nil, false, &fault{inQuery, clip(name), duplicateError(before, name)}
		}
		masked = masked || b.mask != 0 && p.steps[0].number == b.mask
	}
	if err != nil {
		return nil, false, err
	}
	if first, second := all.conflict(); first != nil && (first.source != sourceBody || s.hasBody) {
		return nil, false, &fault{
			inQuery, clip(second.source),
			"it cannot be set together with another field of its oneof: " + first.step.key,
		}
	}
	out, err := b.method.Input.AppendWire(wire, all.appendJSON(nil))
	if err != nil {
		return nil, false, s.faultyParameter(err)
	}
	return out, masked, nil
}

// duplicateError returns the reason of a field that is set twice.
func duplicateError(before, name string) string {
	if before == name {
		return "it is given more than once, and takes one value"
	}
	return "it is given more than once: " + clip(before) + " sets it too"
}

// faultyParameter returns the error of the parameter whose value is invalid, given the error of all
// parameters together.
func (s *stream) faultyParameter(all error) error {
	b := s.binding
	for i := range b.parameters {
		if _, err := b.parameters[i].appendWire(nil, b.method.Input, inPath, s.values[i]); err != nil {
			return err
		}
	}
	for rest := s.request.URL.RawQuery; ; {
		name, value, after, more, err := s.query.next(rest)
		if err != nil || !more {
			wrong := &fault{in: inQuery, reason: reasonOf(all)}
			if syntax, ok := errors.AsType[*transcode.SyntaxError](all); ok {
				wrong.field = syntax.Field
			}
			return wrong
		}
		p, err := newParameter(b.method.Input.Descriptor(), name, transcode.Field)
		if err != nil {
			return &fault{inQuery, clip(name), err.Error()}
		}
		if _, err := p.appendWire(nil, b.method.Input, inQuery, value); err != nil {
			return err
		}
		rest = after
	}
}

// pathJSON returns the JSON of a variable's text.
func (s *stream) pathJSON(p *parameter, value string) ([]byte, error) {
	if !utf8.ValidString(value) {
		return nil, &fault{inPath, p.name, "the text is not valid UTF-8"}
	}
	return p.json(inPath, value)
}

// appendPath appends the fields of the path's variables that the function which selects.
func (s *stream) appendPath(wire []byte, which func(*parameter) bool) ([]byte, error) {
	var err error
	for i := range s.binding.parameters {
		p := &s.binding.parameters[i]
		if !which(p) {
			continue
		}
		if wire, err = p.appendWire(wire, s.binding.method.Input, inPath, s.values[i]); err != nil {
			return nil, err
		}
	}
	return wire, nil
}
