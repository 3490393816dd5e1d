package transcode

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// MaxDepth bounds the nesting of messages and of JSON values.
const MaxDepth = 100

// Program transcodes one type of message. It is immutable and safe for concurrent use.
type Program struct {
	desc     protoreflect.MessageDescriptor
	resolver Resolver
	kind     messageKind
	// slow reports whether the message has features that only protojson handles.
	slow bool
	// whole reports whether the message, or a message within it, has required fields or extensions:
	// see [Program.Validate].
	whole bool
	// byNumber holds the fields with small numbers, and sparse the others.
	byNumber []*field
	sparse   map[protowire.Number]*field
	byName   map[string]*field
	all      []*field // in descriptor order
	fields   int
	oneofs   int
}

// Field returns the field of a message that a JSON member name refers to: the first field with that
// JSON name, else the field with that proto name; nil for none. protojson uses the same order.
func Field(desc protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := desc.Fields().ByJSONName(name); f != nil {
		return f
	}
	return desc.Fields().ByTextName(name)
}

// Name returns a name for which [Field] returns the field, its proto name if possible, or "" if
// both its names refer to other fields.
func Name(field protoreflect.FieldDescriptor) string {
	for _, name := range []string{field.TextName(), field.JSONName()} {
		if found := Field(field.ContainingMessage(), name); found != nil && found.Number() == field.Number() {
			return name
		}
	}
	return ""
}

// Resolver finds the message types of Any values.
type Resolver interface {
	protoregistry.MessageTypeResolver
	protoregistry.ExtensionTypeResolver
}

// messageKind distinguishes the well-known types, which have a special JSON form.
type messageKind uint8

const (
	kindMessage messageKind = iota
	kindAny
	kindTimestamp
	kindDuration
	kindFieldMask
	kindStruct
	kindValue
	kindListValue
	kindWrapper
)

var wellKnown = map[protoreflect.FullName]messageKind{
	"google.protobuf.Any":         kindAny,
	"google.protobuf.Timestamp":   kindTimestamp,
	"google.protobuf.Duration":    kindDuration,
	"google.protobuf.FieldMask":   kindFieldMask,
	"google.protobuf.Struct":      kindStruct,
	"google.protobuf.Value":       kindValue,
	"google.protobuf.ListValue":   kindListValue,
	"google.protobuf.DoubleValue": kindWrapper,
	"google.protobuf.FloatValue":  kindWrapper,
	"google.protobuf.Int64Value":  kindWrapper,
	"google.protobuf.UInt64Value": kindWrapper,
	"google.protobuf.Int32Value":  kindWrapper,
	"google.protobuf.UInt32Value": kindWrapper,
	"google.protobuf.BoolValue":   kindWrapper,
	"google.protobuf.StringValue": kindWrapper,
	"google.protobuf.BytesValue":  kindWrapper,
}

// field is the compiled form of a field descriptor.
type field struct {
	index    int // dense, for the bits of seen
	number   protowire.Number
	kind     protoreflect.Kind
	wireType protowire.Type // of one value, unpacked
	tag      []byte         // encoded, of wireType
	packed   []byte         // encoded tag of the packed form; nil when it cannot be packed
	prefix   []byte         // `"jsonName":`
	name     string
	list     bool
	isMap    bool
	packs    bool // is written in the packed form
	utf8     bool // a string that must be valid UTF-8
	implicit bool // no presence: the zero value is not written
	oneof    int  // dense index from 1; 0: none
	message  *Program
	enum     *enum
	key, val *field // of a map's entry
}

// enum maps the names and numbers of an enumeration.
type enum struct {
	byNumber map[protoreflect.EnumNumber][]byte // quoted names
	byName   map[string]protoreflect.EnumNumber
	null     bool // google.protobuf.NullValue
	allowed  string
}

// smallNumber bounds the field numbers that are looked up in a slice.
const smallNumber = 128

// Compiler compiles programs and caches them. It is safe for concurrent use.
type Compiler struct {
	resolver Resolver
	mu       sync.Mutex
	programs map[protoreflect.MessageDescriptor]*Program
}

// NewCompiler returns a compiler whose programs find the types of Any values in resolver; nil: the
// global registry.
func NewCompiler(resolver Resolver) *Compiler {
	if resolver == nil {
		resolver = protoregistry.GlobalTypes
	}
	return &Compiler{resolver: resolver, programs: map[protoreflect.MessageDescriptor]*Program{}}
}

// Compile returns the program of a message type.
func (c *Compiler) Compile(desc protoreflect.MessageDescriptor) *Program {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.compile(desc)
	c.spread()
	return p
}

func (c *Compiler) compile(desc protoreflect.MessageDescriptor) *Program {
	if p, ok := c.programs[desc]; ok {
		return p
	}
	p := &Program{
		desc:     desc,
		resolver: c.resolver,
		kind:     wellKnown[desc.FullName()],
		byName:   map[string]*field{},
		whole:    desc.ExtensionRanges().Len() > 0 || desc.RequiredNumbers().Len() > 0,
	}
	p.slow = p.whole
	c.programs[desc] = p // before its fields, which may refer to it
	fields := desc.Fields()
	p.fields, p.oneofs = fields.Len(), desc.Oneofs().Len()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Kind() == protoreflect.GroupKind {
			p.slow = true
		}
		if fd.Enum() != nil && fd.Enum().IsClosed() {
			p.slow = true // unknown numbers of a closed enum are unknown fields
		}
		f := c.field(fd, i)
		if f.number < smallNumber {
			for int(f.number) >= len(p.byNumber) {
				p.byNumber = append(p.byNumber, nil)
			}
			p.byNumber[f.number] = f
		} else {
			if p.sparse == nil {
				p.sparse = map[protowire.Number]*field{}
			}
			p.sparse[f.number] = f
		}
		p.all = append(p.all, f)
	}
	// As in protojson, a member has its field's JSON name, or its proto name (for a group, the name
	// of its type) unless that is another field's JSON name.
	for _, name := range []func(protoreflect.FieldDescriptor) string{
		protoreflect.FieldDescriptor.JSONName, protoreflect.FieldDescriptor.TextName,
	} {
		for i, f := range p.all {
			if _, taken := p.byName[name(fields.Get(i))]; !taken {
				p.byName[name(fields.Get(i))] = f
			}
		}
	}
	return p
}

func (c *Compiler) field(fd protoreflect.FieldDescriptor, index int) *field {
	f := &field{
		index:    index,
		number:   fd.Number(),
		kind:     fd.Kind(),
		name:     fd.JSONName(),
		wireType: wireTypes[fd.Kind()],
		list:     fd.IsList(),
		isMap:    fd.IsMap(),
		utf8:     fd.Kind() == protoreflect.StringKind && enforcesUTF8(fd),
		implicit: !fd.HasPresence() && !fd.IsList() && !fd.IsMap(),
		prefix:   append(quoted(fd.JSONName()), ':'),
	}
	f.tag = protowire.AppendTag(nil, f.number, f.wireType)
	if f.list && f.wireType != protowire.BytesType && f.wireType != protowire.StartGroupType {
		f.packed = protowire.AppendTag(nil, f.number, protowire.BytesType)
		f.packs = fd.IsPacked()
	}
	if oneof := fd.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
		f.oneof = oneof.Index() + 1
	}
	switch {
	case f.isMap:
		f.key, f.val = c.field(fd.MapKey(), 0), c.field(fd.MapValue(), 1)
	case fd.Message() != nil:
		f.message = c.compile(fd.Message())
	case fd.Enum() != nil:
		f.enum = compileEnum(fd.Enum())
	}
	return f
}

// enforcesUTF8 reports whether protobuf-go rejects invalid UTF-8 in a string of the field: it does
// in proto3, and in editions unless a feature disables it.
func enforcesUTF8(fd protoreflect.FieldDescriptor) bool {
	if known, ok := fd.(interface{ EnforceUTF8() bool }); ok {
		return known.EnforceUTF8()
	}
	return fd.Syntax() != protoreflect.Proto2
}

func compileEnum(desc protoreflect.EnumDescriptor) *enum {
	e := &enum{
		byNumber: map[protoreflect.EnumNumber][]byte{},
		byName:   map[string]protoreflect.EnumNumber{},
		null:     desc.FullName() == "google.protobuf.NullValue",
		allowed:  allowedOf(desc),
	}
	values := desc.Values()
	for i := range values.Len() {
		value := values.Get(i)
		if _, taken := e.byNumber[value.Number()]; !taken { // of aliases, the first name is written
			e.byNumber[value.Number()] = quoted(string(value.Name()))
		}
		e.byName[string(value.Name())] = value.Number()
	}
	return e
}

// spread marks every message slow, or whole, that contains such a message: protobuf must then parse
// all of it.
func (c *Compiler) spread() {
	for changed := true; changed; {
		changed = false
		for _, p := range c.programs {
			for _, f := range p.all {
				inner := f.message
				if f.val != nil {
					inner = f.val.message
				}
				if inner != nil && (inner.slow && !p.slow || inner.whole && !p.whole) {
					p.slow, p.whole, changed = p.slow || inner.slow, p.whole || inner.whole, true
				}
			}
		}
	}
}

func (p *Program) field(number protowire.Number) *field {
	if int(number) < len(p.byNumber) {
		return p.byNumber[number]
	}
	return p.sparse[number]
}

// Descriptor returns the message's descriptor.
func (p *Program) Descriptor() protoreflect.MessageDescriptor { return p.desc }

var wireTypes = map[protoreflect.Kind]protowire.Type{
	protoreflect.BoolKind: protowire.VarintType, protoreflect.EnumKind: protowire.VarintType,
	protoreflect.Int32Kind: protowire.VarintType, protoreflect.Sint32Kind: protowire.VarintType,
	protoreflect.Uint32Kind: protowire.VarintType,
	protoreflect.Int64Kind:  protowire.VarintType, protoreflect.Sint64Kind: protowire.VarintType,
	protoreflect.Uint64Kind:   protowire.VarintType,
	protoreflect.Sfixed32Kind: protowire.Fixed32Type, protoreflect.Fixed32Kind: protowire.Fixed32Type,
	protoreflect.FloatKind:    protowire.Fixed32Type,
	protoreflect.Sfixed64Kind: protowire.Fixed64Type, protoreflect.Fixed64Kind: protowire.Fixed64Type,
	protoreflect.DoubleKind: protowire.Fixed64Type,
	protoreflect.StringKind: protowire.BytesType, protoreflect.BytesKind: protowire.BytesType,
	protoreflect.MessageKind: protowire.BytesType,
	protoreflect.GroupKind:   protowire.StartGroupType,
}

// seen is the set of fields and oneofs that occurred in a message.
type seen struct {
	small  uint64
	oneofs uint64
	large  []uint64 // for messages with more than 64 fields or oneofs
}

// maxBits bounds the fields and the oneofs that the small form holds.
const maxBits = 64

func newSeen(p *Program) seen {
	if p.fields > maxBits || p.oneofs > maxBits {
		return seen{large: make([]uint64, (p.fields+p.oneofs)/64+1)}
	}
	return seen{}
}

// mark adds a field, and reports whether it, or another field of its oneof, was added before.
func (s *seen) mark(p *Program, f *field) (again, conflict bool) {
	if s.large != nil {
		again = setBit(s.large, f.index)
		if f.oneof > 0 {
			conflict = setBit(s.large, p.fields+f.oneof-1)
		}
		return again, conflict
	}
	bit := uint64(1) << f.index
	again = s.small&bit != 0
	s.small |= bit
	if f.oneof > 0 {
		bit = uint64(1) << (f.oneof - 1)
		conflict = s.oneofs&bit != 0
		s.oneofs |= bit
	}
	return again, conflict
}

func setBit(bits []uint64, i int) bool {
	was := bits[i/64]&(1<<(i%64)) != 0
	bits[i/64] |= 1 << (i % 64)
	return was
}

// IsValue reports whether a message has a special JSON form (a well-known type), so that it is one
// value: its fields have no names in JSON.
func IsValue(desc protoreflect.MessageDescriptor) bool {
	_, known := wellKnown[desc.FullName()]
	return known || desc.FullName() == "google.protobuf.Empty"
}

// IsJSON reports whether the values of a message are any JSON, or JSON objects or lists: Struct,
// Value, ListValue, Any and Empty.
func IsJSON(desc protoreflect.MessageDescriptor) bool {
	switch wellKnown[desc.FullName()] {
	case kindStruct, kindValue, kindListValue, kindAny:
		return true
	}
	return desc.FullName() == "google.protobuf.Empty"
}

// Wrapped returns the field of a wrapper such as google.protobuf.BoolValue; nil: the message is not
// a wrapper.
func Wrapped(desc protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	if wellKnown[desc.FullName()] != kindWrapper {
		return nil
	}
	return desc.Fields().ByNumber(1)
}
