package gateway

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/excerpt"
)

const (
	// maxAuditFields bounds the fields of a request that are read for its audit record, and maxAuditDepth the depth of
	// messages.
	maxAuditFields, maxAuditDepth = 25, 3
	// maxAuditList bounds the values of all lists of texts, as JSON and as percent-encoded text, of which each list has
	// an equal share, and maxAuditValues the values of a list that are read.
	maxAuditList, maxAuditValues = 1200, 1024
	// maxChanges bounds a node's statement of what a call has changed, in bytes.
	maxChanges = 4 << 10
)

// requestFields returns the fields that a request sets, for its audit record: with their values if the method's policy
// lists them, else their names and sizes. A list of texts is one field; of other repeated fields each value is one. The
// request is a valid message of its type.
func requestFields(method *policy.Method, data []byte) []auditlog.Field {
	input, ok := method.Spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return nil
	}
	r := requestRecord{input: input.Input()}
	// Those of the policy come first: other fields, which a client can add at will, do not displace them.
	eachField(data, func(number protowire.Number, kind protowire.Type, content []byte) bool {
		if field := input.Input().Fields().ByNumber(number); field != nil && method.AuditFields[number] {
			r.add(field, fieldPath{number}, 1, kind, content, false)
		}
		return len(r.fields) < maxAuditFields
	})
	r.endLists()
	fields := r.values()
	eachField(data, func(number protowire.Number, kind protowire.Type, content []byte) bool {
		if len(fields) >= maxAuditFields {
			return false
		}
		switch field := input.Input().Fields().ByNumber(number); {
		case field == nil:
			fields = append(fields, auditlog.Field{Name: fmt.Sprint(number), Bytes: len(content)})
		case !method.AuditFields[number]:
			fields = append(fields, auditlog.Field{Name: string(field.Name()), Bytes: size(kind, content)})
		}
		return true
	})
	return fields
}

// eachField calls each for the fields of a message, with the bytes of their values, until it returns false.
func eachField(data []byte, each func(protowire.Number, protowire.Type, []byte) bool) {
	for len(data) > 0 {
		number, kind, tag := protowire.ConsumeTag(data)
		if tag < 0 {
			return
		}
		length := protowire.ConsumeFieldValue(number, kind, data[tag:])
		if length < 0 || !each(number, kind, data[tag:tag+length]) {
			return
		}
		data = data[tag+length:]
	}
}

// size returns the size of a field's value in bytes, without its length.
func size(kind protowire.Type, content []byte) int {
	if kind == protowire.BytesType {
		value, _ := protowire.ConsumeBytes(content)
		return len(value)
	}
	return len(content)
}

// fieldPath identifies a field of a request: the numbers of the fields that lead to it.
type fieldPath [maxAuditDepth]protowire.Number

// requestRecord are the fields of a request that have been read. Only the last value of a singular field counts: values
// become texts at the end, so that a request of millions of them costs no more than it does elsewhere.
type requestRecord struct {
	input  protoreflect.MessageDescriptor
	fields []readField
	lists  []*textList
}

// readField is a field that has been read.
type readField struct {
	auditlog.Field

	path    fieldPath
	as      protoreflect.FieldDescriptor // of a scalar; nil: its value is known, or left out
	kind    protowire.Type
	content []byte
}

// values returns the fields with their values as texts.
func (r *requestRecord) values() []auditlog.Field {
	out := make([]auditlog.Field, len(r.fields))
	for i, f := range r.fields {
		if f.as != nil {
			if text, ok := valueText(f.as, f.kind, f.content); ok {
				f.Value = &text
			}
		}
		out[i] = f.Field
	}
	return out
}

// textList is a field that is a list of texts.
type textList struct {
	path   fieldPath
	some   []string
	sizes  []int // of some, as maxAuditList counts
	size   int   // their sum
	number int
	digest hash.Hash // of all, each with a line feed
}

// add adds the values of the field at a path of a depth: of a message, those of its fields. repeated reports that the
// message with the field is one of several.
func (r *requestRecord) add(
	field protoreflect.FieldDescriptor, path fieldPath, depth int, kind protowire.Type, content []byte, repeated bool,
) {
	repeated = repeated || field.IsList()
	if field.Message() == nil {
		if field.IsList() && field.Kind() == protoreflect.StringKind {
			r.addText(path, content)
			return
		}
		r.set(readField{
			path:    path,
			as:      field,
			kind:    kind,
			content: content,
		}, repeated)
		return
	}
	message, length := protowire.ConsumeBytes(content)
	if kind != protowire.BytesType || length < 0 || len(message) == 0 || depth == maxAuditDepth {
		r.set(readField{path: path, kind: kind, content: content}, repeated)
		return
	}
	eachField(message, func(number protowire.Number, kind protowire.Type, content []byte) bool {
		if inner := field.Message().Fields().ByNumber(number); inner != nil {
			path[depth] = number
			r.add(inner, path, depth+1, kind, content, repeated)
		}
		return len(r.fields) < maxAuditFields
	})
}

// set adds a field in the place of an earlier value of it, since of a singular field the last value counts.
func (r *requestRecord) set(one readField, repeated bool) {
	one.Bytes = size(one.kind, one.content)
	if !repeated {
		for i := range r.fields {
			if r.fields[i].path == one.path {
				one.Name = r.fields[i].Name
				r.fields[i] = one
				return
			}
		}
	}
	one.Name = r.name(one.path)
	r.fields = append(r.fields, one)
}

// name returns the name of the field at a path.
func (r *requestRecord) name(path fieldPath) string {
	var names []string
	message := r.input
	for _, number := range path {
		if number == 0 || message == nil {
			break
		}
		field := message.Fields().ByNumber(number)
		names, message = append(names, string(field.Name())), field.Message()
	}
	return strings.Join(names, ".")
}

// addText adds a value of the list of texts at a path.
func (r *requestRecord) addText(path fieldPath, content []byte) {
	at := slices.IndexFunc(r.lists, func(l *textList) bool { return l.path == path })
	if at < 0 {
		at = len(r.lists)
		r.fields = append(r.fields, readField{Field: auditlog.Field{Name: r.name(path), List: true}, path: path})
		r.lists = append(r.lists, &textList{path: path, digest: sha256.New()})
	}
	list := r.lists[at]
	if list.number++; list.number > maxAuditValues {
		return
	}
	value, _ := protowire.ConsumeBytes(content)
	r.ofList(list).Bytes += len(value)
	_, _ = list.digest.Write(value) // a hash returns no error
	_, _ = list.digest.Write([]byte{'\n'})
	if list.size > maxAuditList {
		return
	}
	text := excerpt.Text(credentials.Mask(string(value)), excerpt.Name)
	encoded, err := json.Marshal(text)
	size := max(len(encoded), len(url.PathEscape(text))) + len(",")
	if list.size += size; err == nil && list.size <= maxAuditList {
		list.some, list.sizes = append(list.some, text), append(list.sizes, size)
	}
}

// endLists sets the values of the lists. The value of a list that is too long has the number of items, the digest of
// all items, and the first items. An auditor who knows the whole list can verify the digest.
func (r *requestRecord) endLists() {
	for _, list := range r.lists {
		size := 0
		for n, one := range list.sizes {
			if size += one; size > maxAuditList/len(r.lists) {
				list.some = list.some[:n]
				break
			}
		}
		text := strings.Join(list.some, ",")
		switch digest := list.digest.Sum(nil); {
		case list.number > maxAuditValues:
			text = fmt.Sprintf("(more than %d values; SHA-256 of their lines: %x) %s", maxAuditValues, digest, text)
		case len(list.some) < list.number:
			text = fmt.Sprintf("(%d values; SHA-256 of their lines: %x) %s", list.number, digest, text)
		}
		r.ofList(list).Value = &text
	}
}

// ofList returns the field of a list.
func (r *requestRecord) ofList(list *textList) *readField {
	return &r.fields[slices.IndexFunc(r.fields, func(f readField) bool { return f.List && f.path == list.path })]
}

// valueText returns a scalar value as text; false: it is bytes, a group or a packed list.
func valueText(field protoreflect.FieldDescriptor, kind protowire.Type, content []byte) (string, bool) {
	switch kind {
	case protowire.BytesType:
		text, _ := protowire.ConsumeBytes(content)
		if field.Kind() == protoreflect.StringKind {
			return excerpt.Text(credentials.Mask(string(text)), excerpt.Name), true
		}
		return packedText(field, text)
	case protowire.VarintType:
		n, _ := protowire.ConsumeVarint(content)
		return varintText(field, n), true
	case protowire.Fixed64Type:
		n, _ := protowire.ConsumeFixed64(content)
		switch field.Kind() {
		case protoreflect.DoubleKind:
			return fmt.Sprint(math.Float64frombits(n)), true
		case protoreflect.Sfixed64Kind:
			return fmt.Sprint(int64(n)), true
		}
		return fmt.Sprint(n), true
	case protowire.Fixed32Type:
		n, _ := protowire.ConsumeFixed32(content)
		switch field.Kind() {
		case protoreflect.FloatKind:
			return fmt.Sprint(math.Float32frombits(n)), true
		case protoreflect.Sfixed32Kind:
			return fmt.Sprint(int32(n)), true
		}
		return fmt.Sprint(n), true
	}
	return "", false
}

// packedText returns the first values of a packed list of varints as text; false: it is another list, or bytes.
func packedText(field protoreflect.FieldDescriptor, data []byte) (string, bool) {
	switch field.Kind() {
	case protoreflect.BytesKind, protoreflect.FloatKind, protoreflect.DoubleKind, protoreflect.Fixed32Kind,
		protoreflect.Fixed64Kind, protoreflect.Sfixed32Kind, protoreflect.Sfixed64Kind:
		return "", false
	}
	var values []string
	for len(data) > 0 && len(values) < maxAuditFields {
		n, length := protowire.ConsumeVarint(data)
		if length < 0 {
			return "", false
		}
		values, data = append(values, varintText(field, n)), data[length:]
	}
	if len(data) > 0 {
		values = append(values, "…")
	}
	return strings.Join(values, ","), true
}

func varintText(field protoreflect.FieldDescriptor, n uint64) string {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return fmt.Sprint(n != 0)
	case protoreflect.EnumKind:
		if value := field.Enum().Values().ByNumber(protoreflect.EnumNumber(int32(n))); value != nil {
			return string(value.Name())
		}
		return fmt.Sprint(int32(n))
	case protoreflect.Int32Kind:
		return fmt.Sprint(int32(n))
	case protoreflect.Int64Kind:
		return fmt.Sprint(int64(n))
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return fmt.Sprint(protowire.DecodeZigZag(n))
	}
	return fmt.Sprint(n)
}

// changesOf returns the changes that a node of the platform reports for a call; nil if it reports none, or none that
// can be parsed.
func changesOf(call *Call) (changes []auditlog.Change) {
	if !call.Method.Upstream.Platform() || call.Attempts == 0 {
		return nil
	}
	text := call.upstream.ResponseHeader().Get(contextkit.HeaderChanges)
	if text == "" || len(text) > maxChanges || json.Unmarshal([]byte(text), &changes) != nil {
		return nil
	}
	return changes
}
