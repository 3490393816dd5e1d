package transcode

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// Errors of a message that cannot be converted to JSON.
var (
	// ErrWire: the bytes are not a valid message.
	ErrWire = errors.New("malformed protobuf")
	// ErrDepth: the nesting exceeds [MaxDepth].
	ErrDepth = fmt.Errorf("nested deeper than %d", MaxDepth)
	// ErrNoJSON: a value has no JSON form, such as a timestamp in the year 10000.
	ErrNoJSON = errors.New("the value has no JSON form")
)

// errRare: the bytes have a form that protojson must handle.
var errRare = errors.New("rare wire form")

// AppendJSON appends the JSON of a message to dst.
func (p *Program) AppendJSON(dst, wire []byte) ([]byte, error) {
	if !p.slow {
		out, err := p.appendJSON(dst, wire, 0)
		switch {
		case err == nil:
			return out, nil
		case !errors.Is(err, errRare) && !errors.Is(err, ErrNoJSON):
			return dst, err
		}
		// A later piece of the field may overwrite a value without a JSON form: only the whole
		// message decides.
	}
	message, err := p.unmarshal(wire)
	if err != nil {
		return dst, err
	}
	return p.slowJSON(dst, message)
}

// AppendFieldJSON appends the JSON of one field's value to dst. For a field that is not set it is
// the zero value, [], {} or, for a message, null.
func (p *Program) AppendFieldJSON(dst, wire []byte, number protowire.Number) ([]byte, error) {
	f := p.field(number)
	if f == nil {
		return nil, fmt.Errorf("transcode: %s has no field %d", p.desc.FullName(), number)
	}
	var only []byte
	for rest := wire; len(rest) > 0; {
		n, _, size := protowire.ConsumeField(rest)
		if size < 0 {
			return nil, p.malformed()
		}
		if n == number {
			only = append(only, rest[:size]...)
		}
		rest = rest[size:]
	}
	text, err := p.AppendJSON(nil, only)
	if err != nil {
		return nil, err
	}
	if value, set := bytes.CutPrefix(text[1:len(text)-1], f.prefix); set {
		return append(dst, value...), nil
	}
	switch {
	case f.isMap:
		return append(dst, "{}"...), nil
	case f.list:
		return append(dst, "[]"...), nil
	case f.implicit:
		return appendZero(dst, f), nil
	}
	return append(dst, "null"...), nil
}

// unmarshal parses a message by reflection, which panics on some malformed map entries
// (google.golang.org/protobuf v1.36.12, proto/decode.go, unmarshalMap).
func (p *Program) unmarshal(wire []byte) (message *dynamicpb.Message, err error) {
	defer func() {
		if recover() != nil {
			err = p.malformed()
		}
	}()
	message = dynamicpb.NewMessage(p.desc)
	if (proto.UnmarshalOptions{Resolver: p.resolver}).Unmarshal(wire, message) != nil {
		return nil, p.malformed()
	}
	return message, nil
}

func (p *Program) slowJSON(dst []byte, message proto.Message) ([]byte, error) {
	out, err := protojson.MarshalOptions{Resolver: p.resolver}.MarshalAppend(dst, message)
	if err != nil {
		return dst, fmt.Errorf("%w: %s: %w", ErrNoJSON, p.desc.FullName(), err)
	}
	return out, nil
}

func (p *Program) appendJSON(dst, wire []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, ErrDepth
	}
	switch p.kind {
	case kindMessage:
		return p.appendObject(dst, wire, depth)
	case kindStruct:
		return p.appendStruct(dst, wire, depth)
	case kindValue:
		return p.appendValue(dst, wire, depth)
	case kindListValue:
		return p.appendListValue(dst, wire, depth)
	case kindWrapper:
		return p.appendWrapper(dst, wire)
	case kindTimestamp, kindDuration:
		return p.appendTime(dst, wire)
	case kindFieldMask:
		return p.appendFieldMask(dst, wire)
	default: // kindAny
		message := &anypb.Any{}
		if err := proto.Unmarshal(wire, message); err != nil {
			return dst, fmt.Errorf("%w: %s", ErrWire, p.desc.FullName())
		}
		return p.slowJSON(dst, message)
	}
}

// appendObject writes an ordinary message, with its members in wire order; a field in several
// pieces, or a second field of a oneof, is left to protojson.
func (p *Program) appendObject(dst, wire []byte, depth int) ([]byte, error) {
	dst = append(dst, '{')
	met := newSeen(p)
	var (
		last *field
		keys keySet
		err  error
	)
	first := true
	for len(wire) > 0 {
		number, wireType, n := consumeTag(wire)
		if n < 0 {
			return dst, p.malformed()
		}
		f := p.field(number)
		matches := f != nil && (wireType == f.wireType || (f.packed != nil && wireType == protowire.BytesType))
		if !matches {
			m := protowire.ConsumeFieldValue(number, wireType, wire[n:])
			if m < 0 {
				return dst, p.malformed()
			}
			wire = wire[n+m:]
			continue
		}
		wire = wire[n:]
		if f == last {
			if !f.list && !f.isMap {
				return dst, errRare
			}
		} else {
			dst = closeField(dst, last)
			if again, conflict := met.mark(p, f); again || conflict {
				return dst, errRare
			}
			last = nil
		}
		fresh := last == nil
		if fresh && !f.list && !f.isMap {
			if f.implicit && isZero(f, wire) {
				m := protowire.ConsumeFieldValue(number, wireType, wire)
				if m < 0 {
					return dst, p.malformed()
				}
				wire = wire[m:]
				continue
			}
		}
		if fresh {
			if f.packed != nil && wireType == protowire.BytesType {
				if n := emptyLength(wire); n > 0 {
					wire = wire[n:]
					continue
				}
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, f.prefix...)
			last = f
		}
		switch {
		case f.isMap:
			dst = append(dst, opener(fresh, '{'))
			if fresh {
				keys.reset()
			}
			dst, wire, err = f.appendEntry(dst, wire, &keys, depth)
		case f.packed != nil && wireType == protowire.BytesType:
			payload, m := protowire.ConsumeBytes(wire)
			if m < 0 {
				return dst, p.malformed()
			}
			wire = wire[m:]
			for open := fresh; len(payload) > 0; open = false {
				dst = append(dst, opener(open, '['))
				if dst, payload, err = f.appendOne(dst, payload, depth); err != nil {
					return dst, err
				}
			}
		case f.list:
			dst = append(dst, opener(fresh, '['))
			dst, wire, err = f.appendOne(dst, wire, depth)
		default:
			dst, wire, err = f.appendOne(dst, wire, depth)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(closeField(dst, last), '}'), nil
}

// consumeTag is protowire.ConsumeTag, except that it rejects invalid field numbers.
func consumeTag(wire []byte) (protowire.Number, protowire.Type, int) {
	number, wireType, n := protowire.ConsumeTag(wire)
	if number > protowire.MaxValidNumber {
		return 0, 0, -1
	}
	return number, wireType, n
}

// opener returns the bytes before an element: the bracket before the first, then commas.
func opener(first bool, bracket byte) byte {
	if first {
		return bracket
	}
	return ','
}

func closeField(dst []byte, f *field) []byte {
	switch {
	case f == nil:
		return dst
	case f.isMap:
		return append(dst, '}')
	case f.list:
		return append(dst, ']')
	}
	return dst
}

// emptyLength returns the size of the length of an empty length-delimited value, 0 if the value is
// not empty.
func emptyLength(wire []byte) int {
	if length, n := protowire.ConsumeVarint(wire); n > 0 && length == 0 {
		return n
	}
	return 0
}

func (p *Program) malformed() error { return fmt.Errorf("%w: %s", ErrWire, p.desc.FullName()) }

func (f *field) malformed() error { return fmt.Errorf("%w: field %s", ErrWire, f.name) }

// isZero reports whether the next value is the zero value, which a field without presence omits in
// JSON.
func isZero(f *field, wire []byte) bool {
	switch f.wireType {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(wire)
		return n > 0 && (v == 0 || (uint32(v) == 0 && is32(f.kind)))
	case protowire.Fixed32Type:
		v, n := protowire.ConsumeFixed32(wire)
		return n > 0 && v == 0
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(wire)
		return n > 0 && v == 0
	default:
		return f.message == nil && emptyLength(wire) > 0
	}
}

// is32 reports whether only the low 32 bits of a varint are used.
func is32(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Sint32Kind, protoreflect.EnumKind:
		return true
	}
	return false
}

// appendOne writes one value and returns the rest of the wire bytes.
func (f *field) appendOne(dst, wire []byte, depth int) (_, rest []byte, err error) {
	switch f.wireType {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(wire)
		if n < 0 {
			return dst, wire, f.malformed()
		}
		return f.appendVarint(dst, v), wire[n:], nil
	case protowire.Fixed32Type:
		v, n := protowire.ConsumeFixed32(wire)
		if n < 0 {
			return dst, wire, f.malformed()
		}
		switch f.kind {
		case protoreflect.FloatKind:
			dst = appendFloat(dst, float64(math.Float32frombits(v)), 32)
		case protoreflect.Sfixed32Kind:
			dst = strconv.AppendInt(dst, int64(int32(v)), 10)
		default:
			dst = strconv.AppendUint(dst, uint64(v), 10)
		}
		return dst, wire[n:], nil
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(wire)
		if n < 0 {
			return dst, wire, f.malformed()
		}
		switch f.kind {
		case protoreflect.DoubleKind:
			dst = appendFloat(dst, math.Float64frombits(v), 64)
		case protoreflect.Sfixed64Kind:
			dst = append(strconv.AppendInt(append(dst, '"'), int64(v), 10), '"')
		default:
			dst = append(strconv.AppendUint(append(dst, '"'), v, 10), '"')
		}
		return dst, wire[n:], nil
	}
	payload, n := protowire.ConsumeBytes(wire)
	if n < 0 {
		return dst, wire, f.malformed()
	}
	rest = wire[n:]
	switch f.kind {
	case protoreflect.StringKind:
		dst, ok := appendString(dst, payload)
		if !ok {
			return dst, rest, fmt.Errorf("%w: field %s is not UTF-8", ErrWire, f.name)
		}
		return dst, rest, nil
	case protoreflect.BytesKind:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), payload), '"'), rest, nil
	default:
		dst, err = f.message.appendJSON(dst, payload, depth+1)
		return dst, rest, err
	}
}

func (f *field) appendVarint(dst []byte, v uint64) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, protowire.DecodeBool(v))
	case protoreflect.Int32Kind:
		return strconv.AppendInt(dst, int64(int32(v)), 10)
	case protoreflect.Uint32Kind:
		return strconv.AppendUint(dst, uint64(uint32(v)), 10)
	case protoreflect.Sint32Kind:
		return strconv.AppendInt(dst, int64(int32(protowire.DecodeZigZag(v&math.MaxUint32))), 10)
	case protoreflect.Int64Kind:
		return append(strconv.AppendInt(append(dst, '"'), int64(v), 10), '"')
	case protoreflect.Sint64Kind:
		return append(strconv.AppendInt(append(dst, '"'), protowire.DecodeZigZag(v), 10), '"')
	case protoreflect.Uint64Kind:
		return append(strconv.AppendUint(append(dst, '"'), v, 10), '"')
	default: // EnumKind
		if f.enum.null {
			return append(dst, "null"...)
		}
		number := protoreflect.EnumNumber(int32(v))
		if name, ok := f.enum.byNumber[number]; ok {
			return append(dst, name...)
		}
		return strconv.AppendInt(dst, int64(number), 10)
	}
}
