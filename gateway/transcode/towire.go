package transcode

import (
	"bytes"
	"encoding/base64"
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// writers pools the state of AppendWire.
var writers = sync.Pool{New: func() any { return new(writer) }}

// maxPooledScratch bounds the scratch buffers that the pool keeps.
const maxPooledScratch = 64 << 10

// writer turns a JSON text into wire bytes.
type writer struct {
	scanner
	dst []byte
}

// AppendWire appends the wire bytes of the message that a JSON text says to
// dst. The error is a [*SyntaxError].
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

// slowWire has protojson read the value that was just skipped.
func (p *Program) slowWire(w *writer, text []byte) error {
	message := dynamicpb.NewMessage(p.desc)
	if err := (protojson.UnmarshalOptions{Resolver: p.resolver, RecursionLimit: MaxDepth}).Unmarshal(text, message); err != nil {
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

// open reserves the length of what follows; close fills it in.
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

// readMessage reads a message of any kind, without its length.
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
			return w.fail(at, "unknown field %q of %s", name, p.desc.FullName())
		}
		if err := w.take(':'); err != nil {
			return err
		}
		again, conflict := met.mark(p, f)
		if again {
			return w.fail(at, "field %q is given more than once", f.name)
		}
		if !f.takesNull() && w.literal("null") {
			met.unmark(p, f, conflict)
			continue
		}
		if conflict {
			return w.fail(at, "field %q cannot be set together with another field of its oneof", f.name)
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

// takesNull reports whether null is a value of the field, and not its absence.
func (f *field) takesNull() bool {
	return (f.message != nil && f.message.kind == kindValue) || (f.enum != nil && f.enum.null)
}

// unmark takes a field's oneof back when the field turned out to be null.
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
	begin := w.pos
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
			return w.fail(at, "key %q is given more than once in the object at byte %d", name, begin)
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
				return err // about something inside the message
			}
		case kindAny, kindValue, kindWrapper:
			return err
		}
	}
	return w.mismatch(at, depth, f.allowed(), err)
}

// readValue is readOne, with the errors of the value's form.
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

// numberOrText reads a number that may stand in quotes.
func (w *writer) numberOrText() ([]byte, error) {
	if w.peek() != '"' {
		return w.number()
	}
	at := w.pos
	text, err := w.text()
	if err != nil {
		return nil, err
	}
	if n := numberLength(text); n == 0 || n != len(text) {
		return nil, w.fail(at, "%q is not a number", text)
	}
	return text, nil
}

func (f *field) readBytes(w *writer, at int, text []byte) error {
	encoding := base64.StdEncoding
	if bytes.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	if len(text)%4 != 0 {
		encoding = encoding.WithPadding(base64.NoPadding)
	}
	body := w.open()
	var err error
	if w.dst, err = encoding.AppendDecode(w.dst, text); err != nil {
		return w.fail(at, "the value of %s is not base64", f.name)
	}
	w.close(body)
	return nil
}

func (f *field) readEnum(w *writer) error {
	at := w.pos
	switch {
	case f.enum.null && w.literal("null"):
		w.dst = append(w.dst, 0)
		return nil
	case w.peek() == '"':
		name, err := w.text()
		if err != nil {
			return err
		}
		number, ok := f.enum.byName[string(name)]
		if !ok {
			return w.fail(at, "%q is not a value of %s", name, f.name)
		}
		w.dst = protowire.AppendVarint(w.dst, uint64(int64(number)))
		return nil
	}
	digits, err := w.number()
	if err != nil {
		return err
	}
	v, ok := signed(digits, 32)
	if !ok {
		return w.fail(at, "%s is not a value of %s", digits, f.name)
	}
	w.dst = protowire.AppendVarint(w.dst, uint64(v))
	return nil
}

func (f *field) readFloat(w *writer) error {
	at := w.pos
	var (
		v    float64
		text []byte
		err  error
	)
	special := false
	if w.peek() == '"' {
		if text, err = w.text(); err != nil {
			return err
		}
		special = true
		switch string(text) {
		case "NaN":
			v = math.NaN()
		case "Infinity":
			v = math.Inf(1)
		case "-Infinity":
			v = math.Inf(-1)
		default:
			special = false
			if n := numberLength(text); n == 0 || n != len(text) {
				return w.fail(at, "%q is not a number", text)
			}
		}
	} else if text, err = w.number(); err != nil {
		return err
	}
	bits := 64
	if f.kind == protoreflect.FloatKind {
		bits = 32
	}
	if !special {
		if v, err = strconv.ParseFloat(string(text), bits); err != nil {
			return w.fail(at, "%s is out of range for %s", text, f.name)
		}
	}
	if bits == 32 {
		w.dst = protowire.AppendFixed32(w.dst, math.Float32bits(float32(v)))
	} else {
		w.dst = protowire.AppendFixed64(w.dst, math.Float64bits(v))
	}
	return nil
}

func (f *field) readInteger(w *writer, at int, digits []byte) error {
	bits := 64
	if is32(f.kind) || f.wireType == protowire.Fixed32Type {
		bits = 32
	}
	if isUnsigned(f.kind) {
		v, ok := unsigned(digits, bits)
		if !ok {
			return w.fail(at, "%s is not an unsigned %d-bit integer, as %s requires", digits, bits, f.name)
		}
		f.appendInteger(w, v)
		return nil
	}
	v, ok := signed(digits, bits)
	if !ok {
		return w.fail(at, "%s is not a %d-bit integer, as %s requires", digits, bits, f.name)
	}
	f.appendInteger(w, uint64(v))
	return nil
}

// appendInteger writes an integer of any kind; a signed one is given in two's
// complement.
func (f *field) appendInteger(w *writer, v uint64) {
	switch {
	case f.kind == protoreflect.Sint32Kind, f.kind == protoreflect.Sint64Kind:
		w.dst = protowire.AppendVarint(w.dst, protowire.EncodeZigZag(int64(v)))
	case f.wireType == protowire.Fixed32Type:
		w.dst = protowire.AppendFixed32(w.dst, uint32(v))
	case f.wireType == protowire.Fixed64Type:
		w.dst = protowire.AppendFixed64(w.dst, v)
	default:
		w.dst = protowire.AppendVarint(w.dst, v)
	}
}

// signed parses a JSON number that must be an integer, written in any way.
func signed(digits []byte, bits int) (int64, bool) {
	if v, err := strconv.ParseInt(string(digits), 10, bits); err == nil {
		return v, true
	}
	i, ok := integral(digits)
	if !ok || !i.IsInt64() {
		return 0, false
	}
	v := i.Int64()
	return v, bits == 64 || v == int64(int32(v))
}

func unsigned(digits []byte, bits int) (uint64, bool) {
	if v, err := strconv.ParseUint(string(digits), 10, bits); err == nil {
		return v, true
	}
	i, ok := integral(digits)
	if !ok || !i.IsUint64() {
		return 0, false
	}
	v := i.Uint64()
	return v, bits == 64 || v == uint64(uint32(v))
}

// maxIntegerDigits is how many digits the integers of protobuf have at most,
// and so how far an exponent can sensibly move the point.
const maxIntegerDigits = 20

// integral parses a number with a fraction or exponent that is an integer all
// the same, such as 1.0 or 1e3.
func integral(digits []byte) (*big.Int, bool) {
	mantissa, power := digits, []byte(nil)
	if e := bytes.IndexAny(digits, "eE"); e >= 0 {
		mantissa, power = digits[:e], digits[e+1:]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	whole, negative := bytes.CutPrefix(whole, []byte{'-'})
	whole = bytes.TrimPrefix(whole, []byte{'0'}) // there is at most one
	fraction = bytes.TrimRight(fraction, "0")
	if len(whole) == 0 && len(fraction) == 0 {
		return new(big.Int), true // zero, with any exponent
	}
	exponent := 0
	if power != nil {
		var err error
		if exponent, err = strconv.Atoi(string(power)); err != nil {
			return nil, false
		}
	}
	if exponent > 0 && len(whole)+exponent > maxIntegerDigits {
		return nil, false
	}
	all := string(whole) + string(fraction)
	point := len(whole) + exponent
	switch {
	case point < 0, point == 0 && strings.Trim(all, "0") != "":
		return nil, strings.Trim(all, "0") == ""
	case point < len(all):
		if strings.Trim(all[point:], "0") != "" {
			return nil, false
		}
		all = all[:point]
	case point > maxIntegerDigits:
		return nil, false
	default:
		all += strings.Repeat("0", point-len(all))
	}
	i, ok := new(big.Int).SetString("0"+all, 10)
	if ok && negative {
		i.Neg(i)
	}
	return i, ok
}
