package transcode

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Field numbers of google/protobuf/struct.proto.
const (
	structFields = 1
	listValues   = 1
	entryKey     = 1
	entryValue   = 2
	valueNull    = 1
	valueNumber  = 2
	valueString  = 3
	valueBool    = 4
	valueStruct  = 5
	valueList    = 6
)

// The encoded tags of struct.proto's fields.
const (
	tagBytes1      = structFields<<3 | byte(protowire.BytesType)
	tagEntryValue  = entryValue<<3 | byte(protowire.BytesType)
	tagValueNull   = valueNull<<3 | byte(protowire.VarintType)
	tagValueNumber = valueNumber<<3 | byte(protowire.Fixed64Type)
	tagValueString = valueString<<3 | byte(protowire.BytesType)
	tagValueBool   = valueBool<<3 | byte(protowire.VarintType)
	tagValueStruct = valueStruct<<3 | byte(protowire.BytesType)
	tagValueList   = valueList<<3 | byte(protowire.BytesType)
)

// consume reads a tagged length-delimited field of struct.proto. Other input than tag (an unknown
// field, or an over-long tag) is errRare.
func consume(wire []byte, tag byte) (payload, rest []byte, err error) {
	if wire[0] != tag {
		return nil, nil, errRare
	}
	if len(wire) > 1 && wire[1] < 0x80 { // a length of one byte
		if end := 2 + int(wire[1]); end <= len(wire) {
			return wire[2:end], wire[end:], nil
		}
	}
	payload, n := protowire.ConsumeBytes(wire[1:])
	if n < 0 {
		return nil, nil, fmt.Errorf("%w: google.protobuf.Struct", ErrWire)
	}
	return payload, wire[1+n:], nil
}

func (p *Program) appendStruct(dst, wire []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, ErrDepth
	}
	valueProgram := p.byNumber[structFields].val.message
	dst = append(dst, '{')
	var keys keySet
	for first := true; len(wire) > 0; first = false {
		entry, rest, err := consume(wire, tagBytes1)
		if err != nil {
			return dst, err
		}
		wire = rest
		if !first {
			dst = append(dst, ',')
		}
		if len(entry) == 0 {
			return dst, errRare
		}
		key, value, err := consume(entry, tagBytes1)
		if err != nil {
			return dst, err
		}
		if !keys.add(key) || len(value) == 0 {
			return dst, errRare
		}
		if value, rest, err = consume(value, tagEntryValue); err != nil {
			return dst, err
		}
		if len(rest) > 0 {
			return dst, errRare
		}
		var ok bool
		if dst, ok = appendString(dst, key); !ok {
			return dst, fmt.Errorf("%w: a member's name is not UTF-8", ErrWire)
		}
		dst = append(dst, ':')
		if dst, err = valueProgram.appendValue(dst, value, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (p *Program) appendListValue(dst, wire []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, ErrDepth
	}
	valueProgram := p.byNumber[listValues].message
	dst = append(dst, '[')
	for first := true; len(wire) > 0; first = false {
		value, rest, err := consume(wire, tagBytes1)
		if err != nil {
			return dst, err
		}
		wire = rest
		if !first {
			dst = append(dst, ',')
		}
		if dst, err = valueProgram.appendValue(dst, value, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendValue writes a google.protobuf.Value, which has exactly one field.
func (p *Program) appendValue(dst, wire []byte, depth int) ([]byte, error) {
	if len(wire) == 0 {
		return dst, fmt.Errorf("%w: google.protobuf.Value without a value", ErrNoJSON)
	}
	tag, wire := wire[0], wire[1:]
	var n int
	switch tag {
	case tagValueNull:
		if _, n = protowire.ConsumeVarint(wire); n > 0 { // NullValue has one value
			dst = append(dst, "null"...)
		}
	case tagValueNumber:
		var v uint64
		if v, n = protowire.ConsumeFixed64(wire); n > 0 {
			f := math.Float64frombits(v)
			if math.IsNaN(f) || math.IsInf(f, 0) {
				return dst, fmt.Errorf("%w: google.protobuf.Value of %v", ErrNoJSON, f)
			}
			dst = appendFloat(dst, f, 64)
		}
	case tagValueBool:
		var v uint64
		if v, n = protowire.ConsumeVarint(wire); n > 0 {
			dst = strconv.AppendBool(dst, protowire.DecodeBool(v))
		}
	case tagValueString, tagValueStruct, tagValueList:
		var payload []byte
		if payload, n = protowire.ConsumeBytes(wire); n < 0 {
			break
		}
		if len(wire) > n {
			return dst, errRare
		}
		switch tag {
		case tagValueString:
			dst, ok := appendString(dst, payload)
			if !ok {
				return dst, fmt.Errorf("%w: a string is not UTF-8", ErrWire)
			}
			return dst, nil
		case tagValueStruct:
			return p.byNumber[valueStruct].message.appendStruct(dst, payload, depth+1)
		default:
			return p.byNumber[valueList].message.appendListValue(dst, payload, depth+1)
		}
	default:
		return dst, errRare
	}
	if n < 0 {
		return dst, fmt.Errorf("%w: google.protobuf.Value", ErrWire)
	}
	if len(wire) > n {
		return dst, errRare // of two values, the last counts
	}
	return dst, nil
}

// appendWrapper writes the one value of google/protobuf/wrappers.proto.
func (p *Program) appendWrapper(dst, wire []byte) ([]byte, error) {
	f := p.byNumber[1]
	if len(wire) == 0 {
		return appendZero(dst, f), nil
	}
	number, wireType, n := consumeTag(wire)
	if n < 0 {
		return dst, p.malformed()
	}
	if number != 1 || wireType != f.wireType {
		return dst, errRare
	}
	dst, rest, err := f.appendOne(dst, wire[n:], 0)
	if err == nil && len(rest) > 0 {
		err = errRare
	}
	return dst, err
}

// Bounds of google/protobuf/timestamp.proto and duration.proto.
const (
	minTimestamp  = -62135596800 // 0001-01-01T00:00:00Z
	maxTimestamp  = 253402300799 // 9999-12-31T23:59:59Z
	maxDuration   = 315576000000 // 10,000 years
	nanosInSecond = 1_000_000_000
)

// secondsNanos reads the two fields of Timestamp and Duration.
func (p *Program) secondsNanos(wire []byte) (seconds int64, nanos int32, err error) {
	met := newSeen(p)
	for len(wire) > 0 {
		number, wireType, n := consumeTag(wire)
		if n < 0 {
			return 0, 0, p.malformed()
		}
		f := p.field(number)
		if f == nil || wireType != protowire.VarintType {
			return 0, 0, errRare
		}
		if again, _ := met.mark(p, f); again {
			return 0, 0, errRare
		}
		v, m := protowire.ConsumeVarint(wire[n:])
		if m < 0 {
			return 0, 0, p.malformed()
		}
		if number == 1 {
			seconds = int64(v)
		} else {
			nanos = int32(v)
		}
		wire = wire[n+m:]
	}
	return seconds, nanos, nil
}

func (p *Program) appendTime(dst, wire []byte) ([]byte, error) {
	seconds, nanos, err := p.secondsNanos(wire)
	if err != nil {
		return dst, err
	}
	if p.kind == kindTimestamp {
		if seconds < minTimestamp || seconds > maxTimestamp || nanos < 0 || nanos >= nanosInSecond {
			return dst, fmt.Errorf("%w: timestamp of %d s and %d ns", ErrNoJSON, seconds, nanos)
		}
		dst = time.Unix(seconds, 0).UTC().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05")
		return append(appendNanos(dst, nanos), 'Z', '"'), nil
	}
	if seconds < -maxDuration || seconds > maxDuration || nanos <= -nanosInSecond || nanos >= nanosInSecond ||
		(seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) {
		return dst, fmt.Errorf("%w: duration of %d s and %d ns", ErrNoJSON, seconds, nanos)
	}
	dst = append(dst, '"')
	if seconds < 0 || nanos < 0 {
		dst, seconds, nanos = append(dst, '-'), -seconds, -nanos
	}
	dst = strconv.AppendInt(dst, seconds, 10)
	return append(appendNanos(dst, nanos), 's', '"'), nil
}

// appendNanos writes a fraction with 0, 3, 6 or 9 digits.
func appendNanos(dst []byte, nanos int32) []byte {
	if nanos == 0 {
		return dst
	}
	digits := 9
	for digits > 3 && nanos%1000 == 0 {
		nanos, digits = nanos/1000, digits-3
	}
	dst = append(dst, '.')
	start := len(dst)
	for range digits {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= start; i-- {
		dst[i] = '0' + byte(nanos%10)
		nanos /= 10
	}
	return dst
}

func (p *Program) appendFieldMask(dst, wire []byte) ([]byte, error) {
	dst = append(dst, '"')
	for first := true; len(wire) > 0; first = false {
		if wire[0] != tagBytes1 {
			return dst, errRare
		}
		path, n := protowire.ConsumeBytes(wire[1:])
		if n < 0 {
			return dst, p.malformed()
		}
		wire = wire[1+n:]
		if !first {
			dst = append(dst, ',')
		}
		if !protoreflect.FullName(path).IsValid() {
			return dst, fmt.Errorf("%w: field mask path %q", ErrNoJSON, path)
		}
		camel := camelCase(string(path))
		if snakeCase(camel) != string(path) {
			return dst, fmt.Errorf("%w: field mask path %q", ErrNoJSON, path)
		}
		dst = append(dst, camel...)
	}
	return append(dst, '"'), nil
}

// camelCase converts foo_bar to fooBar, as protobuf does.
func camelCase(s string) string {
	var b strings.Builder
	upper := false
	for i := range len(s) {
		c := s[i]
		if c == '_' {
			upper = true
			continue
		}
		if upper && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		b.WriteByte(c)
		upper = false
	}
	return b.String()
}

// snakeCase converts fooBar to foo_bar, as protobuf does.
func snakeCase(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}
