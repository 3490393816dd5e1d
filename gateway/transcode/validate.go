package transcode

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// WireError reports why bytes are not a valid message of their type. It wraps [ErrWire].
type WireError struct {
	// Message is the type of the innermost message.
	Message protoreflect.FullName
	// Field is the JSON name of the malformed field; "": the message itself is malformed.
	Field string
	// Reason describes the fault.
	Reason string
}

// Error implements error.
func (e *WireError) Error() string {
	where := string(e.Message)
	if e.Field != "" {
		where += "." + e.Field
	}
	return fmt.Sprintf("%v: %s: %s", ErrWire, where, e.Reason)
}

// Unwrap returns [ErrWire].
func (e *WireError) Unwrap() error { return ErrWire }

// Reasons of a WireError.
const (
	reasonCutOff = "the value is cut off, or its length or type is malformed"
	reasonTag    = "a field number is not between 1 and 536870911, or a group ends that was not started"
	reasonUTF8   = "the text is not valid UTF-8"
	reasonDepth  = "messages are nested deeper than 10000"
	reasonGroup  = "a group does not end"
)

// Validate returns nil if [proto.Unmarshal] accepts wire as a message of the type, else a
// [*WireError]. It allocates nothing unless it fails, except for types with required fields or
// extensions, which it reads by proto.Unmarshal.
//
// Source: https://protobuf.dev/programming-guides/encoding/; the bounds are those of
// protobuf-go (field numbers, depth), which treats a known field number with another wire type
// as an unknown field.
func (p *Program) Validate(wire []byte) error {
	if _, err := p.validate(wire, 0, protowire.DefaultRecursionLimit); err != nil {
		return err
	}
	if p.whole {
		return p.validateWhole(wire)
	}
	return nil
}

// validateWhole parses a message with proto.Unmarshal, which alone can check required fields and
// extensions.
func (p *Program) validateWhole(wire []byte) error {
	if _, err := p.unmarshal(wire); err == nil {
		return nil
	}
	return &WireError{p.desc.FullName(), "", "an extension is malformed, or a required field is missing"}
}

// validate checks a message up to the end of wire or, inside a group of that number, up to the end
// of the group. It returns the length of the message in bytes.
func (p *Program) validate(wire []byte, group protowire.Number, depth int) (int, error) {
	if depth--; depth < 0 {
		return 0, &WireError{p.desc.FullName(), "", reasonDepth}
	}
	b := wire
	for len(b) > 0 {
		var tag uint64
		size := 1
		if b[0] < 0x80 {
			tag = uint64(b[0])
		} else if tag, size = protowire.ConsumeVarint(b); size < 0 {
			return 0, &WireError{p.desc.FullName(), "", reasonTag}
		}
		b = b[size:]
		number, wireType := tag>>3, protowire.Type(tag&7)
		if number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
			return 0, &WireError{p.desc.FullName(), "", reasonTag}
		}
		if wireType == protowire.EndGroupType {
			if protowire.Number(number) != group {
				return 0, &WireError{p.desc.FullName(), "", reasonTag}
			}
			return len(wire) - len(b), nil
		}
		var err error
		if f := p.field(protowire.Number(number)); f != nil {
			size, err = f.validate(p, b, wireType, depth)
		} else if size = protowire.ConsumeFieldValue(
			protowire.Number(number), wireType, b,
		); size < 0 {
			err = &WireError{p.desc.FullName(), "", reasonCutOff}
		}
		if err != nil {
			return 0, err
		}
		b = b[size:]
	}
	if group != 0 {
		return 0, &WireError{p.desc.FullName(), "", reasonGroup}
	}
	return len(wire), nil
}

// validate checks one value of the field, which is one of p's, and returns its length in
// bytes.
func (f *field) validate(p *Program, b []byte, wireType protowire.Type, depth int) (size int, err error) {
	switch {
	case wireType == protowire.BytesType && (f.wireType == protowire.BytesType || f.packed != nil):
		var value []byte
		if len(b) > 0 && int(b[0]) < min(0x80, len(b)) { // the usual case
			size = 1 + int(b[0])
			value = b[1:size]
		} else if value, size = protowire.ConsumeBytes(b); size < 0 {
			break
		}
		switch {
		case f.isMap:
			err = f.validateEntry(p, value, depth)
		case f.message != nil:
			_, err = f.message.validate(value, 0, depth)
		case f.utf8:
			if !utf8.Valid(value) {
				err = &WireError{p.desc.FullName(), f.name, reasonUTF8}
			}
		case f.packed != nil:
			if !validPacked(value, f.wireType) {
				err = &WireError{p.desc.FullName(), f.name, reasonCutOff}
			}
		}
		return size, err
	case wireType == protowire.StartGroupType && f.wireType == protowire.StartGroupType:
		return f.message.validate(b, f.number, depth)
	default: // a scalar, or a field of another wire type, which is unknown
		size = protowire.ConsumeFieldValue(f.number, wireType, b)
	}
	if size < 0 {
		return 0, &WireError{p.desc.FullName(), f.name, reasonCutOff}
	}
	return size, nil
}

// validateEntry checks an entry of the map field f, which is one of p's.
func (f *field) validateEntry(p *Program, b []byte, depth int) error {
	if depth--; depth < 0 {
		return &WireError{p.desc.FullName(), f.name, reasonDepth}
	}
	for len(b) > 0 {
		number, wireType, size := protowire.ConsumeTag(b)
		if size < 0 || number > protowire.MaxValidNumber {
			return &WireError{p.desc.FullName(), f.name, reasonTag}
		}
		b = b[size:]
		var err error
		switch number {
		case f.key.number:
			size, err = f.key.validate(p, b, wireType, depth)
		case f.val.number:
			size, err = f.val.validate(p, b, wireType, depth)
		default:
			size = protowire.ConsumeFieldValue(number, wireType, b)
		}
		if err != nil {
			return err
		}
		if size < 0 {
			return &WireError{p.desc.FullName(), f.name, reasonCutOff}
		}
		b = b[size:]
	}
	return nil
}

// validPacked reports whether b is a sequence of values of that wire type.
func validPacked(b []byte, wireType protowire.Type) bool {
	switch wireType {
	case protowire.Fixed32Type:
		return len(b)%4 == 0
	case protowire.Fixed64Type:
		return len(b)%8 == 0
	}
	for len(b) > 0 {
		_, size := protowire.ConsumeVarint(b)
		if size < 0 {
			return false
		}
		b = b[size:]
	}
	return true
}
