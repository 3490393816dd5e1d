package transcode

import (
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/internal/excerpt"
)

// writers pools the writers of AppendWire.
var writers = sync.Pool{New: func() any { return new(writer) }}

// maxPooledScratch bounds the scratch buffers that the pool retains.
const maxPooledScratch = 64 << 10

// writer converts JSON to wire bytes.
type writer struct {
	scanner
	dst []byte
}

// AppendWire parses JSON as the message and appends its wire bytes to dst. The error is a
// [*SyntaxError].
func (p *Program) AppendWire(dst, text []byte) ([]byte, error) {
	w := writers.Get().(*writer)
	w.src, w.pos, w.dst = text, 0, dst
	err := p.read(w)
	out := w.dst
	w.src, w.dst = nil, nil
	if cap(w.scratch) <= maxPooledScratch {
		writers.Put(w)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (p *Program) read(w *writer) error {
	if p.slow {
		text, err := w.skip(0)
		if err != nil {
			return err
		}
		if err := w.end(); err != nil {
			return err
		}
		return p.slowWire(w, text)
	}
	if err := p.readMessage(w, 0); err != nil {
		return err
	}
	return w.end()
}

// slowWire parses the value that was just skipped with protojson.
func (p *Program) slowWire(w *writer, text []byte) error {
	message := dynamicpb.NewMessage(p.desc)
	if err := (protojson.UnmarshalOptions{
		Resolver:       p.resolver,
		RecursionLimit: MaxDepth,
	}).Unmarshal(text, message); err != nil {
		reason := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies its spaces on purpose
		return w.fail(w.pos-len(text), "%s", strings.TrimPrefix(reason, "proto: "))
	}
	var err error
	w.dst, err = proto.MarshalOptions{}.MarshalAppend(w.dst, message)
	if err != nil {
		return w.fail(w.pos-len(text), "%s cannot be encoded", p.desc.FullName())
	}
	return nil
}

// open reserves one byte for a length; close fills it in.
func (w *writer) open() int {
	w.dst = append(w.dst, 0)
	return len(w.dst)
}

func (w *writer) close(start int) {
	length := len(w.dst) - start
	if length < 1<<7 {
		w.dst[start-1] = byte(length)
		return
	}
	// The length needs more bytes than were reserved: move what follows.
	extra := protowire.SizeVarint(uint64(length)) - 1
	for range extra {
		w.dst = append(w.dst, 0)
	}
	copy(w.dst[start+extra:], w.dst[start:start+length])
	protowire.AppendVarint(w.dst[:start-1], uint64(length))
}

func (w *writer) appendBytes(b []byte) {
	w.dst = protowire.AppendBytes(w.dst, b)
}

// readMessage reads a message of any kind, without its length prefix.
func (p *Program) readMessage(w *writer, depth int) error {
	if depth > MaxDepth {
		return w.fail(w.pos, "%v", ErrDepth)
	}
	switch p.kind {
	case kindMessage:
		return p.readObject(w, depth)
	case kindStruct:
		return p.readStruct(w, depth)
	case kindValue:
		return p.readValue(w, depth)
	case kindListValue:
		return p.readListValue(w, depth)
	case kindWrapper:
		return p.readWrapper(w)
	case kindTimestamp:
		return p.readTimestamp(w)
	case kindDuration:
		return p.readDuration(w)
	case kindFieldMask:
		return p.readFieldMask(w)
	default: // kindAny
		text, err := w.skip(depth)
		if err != nil {
			return err
		}
		return p.slowWire(w, text)
	}
}

func (p *Program) readObject(w *writer, depth int) error {
	if err := w.take('{'); err != nil {
		return err
	}
	met := newSeen(p)
	for first := true; ; first = false {
		more, err := w.next(first, '}')
		if err != nil || !more {
			return err
		}
		at := w.pos
		name, err := w.text()
		if err != nil {
			return err
		}
		f, known := p.byName[string(name)]
		if !known {
			return within(w.fail(at, "it is not a field of %s", p.desc.FullName()), memberName(name))
		}
		if err := w.take(':'); err != nil {
			return err
		}
		again, conflict := met.mark(p, f)
		if again {
			return within(w.fail(at, "it is given more than once"), f.name)
		}
		if !f.takesNull() && w.literal("null") {
			met.unmark(p, f, conflict)
			continue
		}
		if conflict {
			return within(w.fail(at, "it cannot be set together with another field of its oneof"), f.name)
		}
		switch {
		case f.list:
			err = f.readList(w, depth)
		case f.isMap:
			err = f.readMap(w, depth)
		default:
			err = f.readSingular(w, depth)
		}
		if err != nil {
			return within(err, f.name)
		}
	}
}

// takesNull reports whether null is a value of the field, rather than its absence.
func (f *field) takesNull() bool {
	return (f.message != nil && f.message.kind == kindValue) || (f.enum != nil && f.enum.null)
}

// unmark removes a field's oneof from the set after the field turned out to be null.
func (s *seen) unmark(p *Program, f *field, conflict bool) {
	if f.oneof == 0 || conflict {
		return
	}
	if s.large != nil {
		bit := p.fields + f.oneof - 1
		s.large[bit/64] &^= 1 << (bit % 64)
		return
	}
	s.oneofs &^= uint64(1) << (f.oneof - 1)
}

func (f *field) readSingular(w *writer, depth int) error {
	start := len(w.dst)
	w.dst = append(w.dst, f.tag...)
	value := len(w.dst)
	if err := f.readOne(w, depth); err != nil {
		return err
	}
	if f.implicit && isZero(f, w.dst[value:]) {
		w.dst = w.dst[:start]
	}
	return nil
}

func (f *field) readList(w *writer, depth int) error {
	if w.peek() != '[' {
		return w.mismatch(w.pos, depth, "an array", nil)
	}
	w.pos++
	count := 0
	start := len(w.dst)
	body := 0
	if f.packs {
		w.dst = append(w.dst, f.packed...)
		body = w.open()
	}
	for first := true; ; first = false {
		more, err := w.next(first, ']')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if !f.packs {
			w.dst = append(w.dst, f.tag...)
		}
		if err := f.readOne(w, depth); err != nil {
			return within(err, "["+strconv.Itoa(count)+"]")
		}
		count++
	}
	switch {
	case !f.packs:
	case len(w.dst) == body:
		w.dst = w.dst[:start]
	default:
		w.close(body)
	}
	return nil
}

func (f *field) readMap(w *writer, depth int) error {
	if w.peek() != '{' {
		return w.mismatch(w.pos, depth, "an object", nil)
	}
	w.pos++
	var keys keySet
	for first := true; ; first = false {
		more, err := w.next(first, '}')
		if err != nil || !more {
			return err
		}
		at := w.pos
		name, err := w.text()
		if err != nil {
			return err
		}
		w.dst = append(w.dst, f.tag...)
		entry := w.open()
		w.dst = append(w.dst, f.key.tag...)
		key := len(w.dst)
		if err := f.key.readKey(w, at, name); err != nil {
			return err
		}
		if !keys.add(w.dst[key:]) {
			return within(w.fail(at, "it is given more than once"), "["+excerpt.Text(string(name), excerpt.Name)+"]")
		}
		if err := w.take(':'); err != nil {
			return err
		}
		w.dst = append(w.dst, f.val.tag...)
		value := w.pos
		if err := f.val.readOne(w, depth); err != nil {
			return within(err, keyBefore(w.src, at, value))
		}
		w.close(entry)
	}
}

// readKey writes a map's key.
func (f *field) readKey(w *writer, at int, name []byte) error {
	switch f.kind {
	case protoreflect.StringKind:
		w.appendBytes(name)
		return nil
	case protoreflect.BoolKind:
		switch string(name) {
		case "true", "false":
			w.dst = protowire.AppendVarint(w.dst, protowire.EncodeBool(name[0] == 't'))
			return nil
		}
	default:
		bits := 64
		if is32(f.kind) || f.wireType == protowire.Fixed32Type {
			bits = 32
		}
		if isUnsigned(f.kind) {
			if v, err := strconv.ParseUint(string(name), 10, bits); err == nil {
				f.appendInteger(w, v)
				return nil
			}
		} else if v, err := strconv.ParseInt(string(name), 10, bits); err == nil {
			f.appendInteger(w, uint64(v))
			return nil
		}
	}
	return w.fail(at, "%q is not a valid key of type %s", name, f.kind)
}

func isUnsigned(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return true
	}
	return false
}

// readOne reads one value, without its tag.
func (f *field) readOne(w *writer, depth int) error {
	w.peek()
	at := w.pos
	err := f.readValue(w, at, depth)
	if err == nil {
		return nil
	}
	if inside := f.message; inside != nil {
		switch inside.kind {
		case kindMessage, kindStruct, kindListValue:
			opener := byte('{')
			if inside.kind == kindListValue {
				opener = '['
			}
			if at < len(w.src) && w.src[at] == opener {
				return err // an error inside the message
			}
		case kindAny, kindValue, kindWrapper:
			return err
		}
	}
	return w.mismatch(at, depth, f.allowed(), err)
}

// readValue is readOne without the description of the expected value in errors.
func (f *field) readValue(w *writer, at, depth int) error {
	switch f.kind {
	case protoreflect.MessageKind:
		body := w.open()
		if err := f.message.readMessage(w, depth+1); err != nil {
			return err
		}
		w.close(body)
		return nil
	case protoreflect.StringKind:
		text, err := w.text()
		if err != nil {
			return err
		}
		w.appendBytes(text)
		return nil
	case protoreflect.BytesKind:
		text, err := w.text()
		if err != nil {
			return err
		}
		return f.readBytes(w, at, text)
	case protoreflect.BoolKind:
		switch {
		case w.literal("true"):
			w.dst = append(w.dst, 1)
		case w.literal("false"):
			w.dst = append(w.dst, 0)
		default:
			return w.unexpected("true or false for " + f.name)
		}
		return nil
	case protoreflect.EnumKind:
		return f.readEnum(w)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return f.readFloat(w)
	}
	digits, err := w.numberOrText()
	if err != nil {
		return err
	}
	return f.readInteger(w, at, digits)
}
