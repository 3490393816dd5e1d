package transcode

import (
	"bytes"
	"encoding/base64"
	"math"
	"math/big"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// numberOrText reads a number, with or without quotes.
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

// appendInteger writes an integer of any kind; a signed one is passed in two's complement.
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

// signed parses a JSON number that must be an integer, in any notation.
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

// maxIntegerDigits bounds the digits of protobuf's integers, and so the useful exponents.
const maxIntegerDigits = 20

// integral parses a number with a fraction or exponent whose value is an integer, such as 1.0 or
// 1e3.
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
