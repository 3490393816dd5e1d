package transcode

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func (p *Program) readStruct(w *writer, depth int) error {
	if depth > MaxDepth {
		return w.fail(w.pos, "%v", ErrDepth)
	}
	if err := w.take('{'); err != nil {
		return err
	}
	value := p.byNumber[structFields].val.message
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
		if !keys.add(name) {
			return w.fail(at, "member %q is given more than once", name)
		}
		w.dst = append(w.dst, tagBytes1)
		entry := w.open()
		w.dst = append(w.dst, tagBytes1)
		w.appendBytes(name)
		if err := w.take(':'); err != nil {
			return err
		}
		w.dst = append(w.dst, tagEntryValue)
		body := w.open()
		if err := value.readValue(w, depth+1); err != nil {
			return err
		}
		w.close(body)
		w.close(entry)
	}
}

func (p *Program) readListValue(w *writer, depth int) error {
	if depth > MaxDepth {
		return w.fail(w.pos, "%v", ErrDepth)
	}
	if err := w.take('['); err != nil {
		return err
	}
	value := p.byNumber[listValues].message
	for first := true; ; first = false {
		more, err := w.next(first, ']')
		if err != nil || !more {
			return err
		}
		w.dst = append(w.dst, tagBytes1)
		body := w.open()
		if err := value.readValue(w, depth+1); err != nil {
			return err
		}
		w.close(body)
	}
}

func (p *Program) readValue(w *writer, depth int) error {
	c := w.peek()
	at := w.pos
	switch {
	case c == '"':
		text, err := w.text()
		if err != nil {
			return err
		}
		w.dst = append(w.dst, tagValueString)
		w.appendBytes(text)
		return nil
	case c == '{':
		w.dst = append(w.dst, tagValueStruct)
		body := w.open()
		if err := p.byNumber[valueStruct].message.readStruct(w, depth+1); err != nil {
			return err
		}
		w.close(body)
		return nil
	case c == '[':
		w.dst = append(w.dst, tagValueList)
		body := w.open()
		if err := p.byNumber[valueList].message.readListValue(w, depth+1); err != nil {
			return err
		}
		w.close(body)
		return nil
	case c == 'n' && w.literal("null"):
		w.dst = append(w.dst, tagValueNull, 0)
		return nil
	case c == 't' && w.literal("true"):
		w.dst = append(w.dst, tagValueBool, 1)
		return nil
	case c == 'f' && w.literal("false"):
		w.dst = append(w.dst, tagValueBool, 0)
		return nil
	}
	text, err := w.number()
	if err != nil {
		return err
	}
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return w.fail(at, "%s is out of range", text)
	}
	w.dst = append(w.dst, tagValueNumber)
	w.dst = protowire.AppendFixed64(w.dst, math.Float64bits(v))
	return nil
}

func (p *Program) readWrapper(w *writer) error {
	f := p.byNumber[1]
	start := len(w.dst)
	w.dst = append(w.dst, f.tag...)
	value := len(w.dst)
	if err := f.readOne(w, 0); err != nil {
		return err
	}
	if isZero(f, w.dst[value:]) {
		w.dst = w.dst[:start]
	}
	return nil
}

// appendTime writes the two fields of Timestamp and Duration.
func (w *writer) appendTime(seconds int64, nanos int32) {
	if seconds != 0 {
		w.dst = protowire.AppendVarint(append(w.dst, 1<<3), uint64(seconds))
	}
	if nanos != 0 {
		w.dst = protowire.AppendVarint(append(w.dst, 2<<3), uint64(int64(nanos)))
	}
}

func (p *Program) readTimestamp(w *writer) error {
	w.peek()
	at := w.pos
	raw, err := w.text()
	if err != nil {
		return err
	}
	text := string(raw)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return w.fail(at, "%q is not an RFC 3339 timestamp", text)
	}
	point, zone := strings.LastIndexByte(text, '.'), strings.LastIndexAny(text, "Z-+")
	if point >= 0 && zone >= point && zone-point > len(".999999999") {
		return w.fail(at, "%q has more than nine fractional digits", text)
	}
	if s := t.Unix(); s < minTimestamp || s > maxTimestamp {
		return w.fail(at, "%q is not in the years 1 to 9999", text)
	}
	w.appendTime(t.Unix(), int32(t.Nanosecond()))
	return nil
}

func (p *Program) readDuration(w *writer) error {
	w.peek()
	at := w.pos
	text, err := w.text()
	if err != nil {
		return err
	}
	seconds, nanos, ok := parseDuration(text)
	if !ok || seconds < -maxDuration || seconds > maxDuration {
		return w.fail(at, "%q is not a duration such as \"1.5s\", or is out of range", text)
	}
	w.appendTime(seconds, nanos)
	return nil
}

// parseDuration reads [sign] digits [. up to nine digits] "s".
func parseDuration(text []byte) (seconds int64, nanos int32, ok bool) {
	text, ok = bytes.CutSuffix(text, []byte{'s'})
	if !ok || len(text) == 0 {
		return 0, 0, false
	}
	negative := text[0] == '-'
	if negative || text[0] == '+' {
		text = text[1:]
	}
	whole, fraction, point := bytes.Cut(text, []byte{'.'})
	if len(text) == 0 || (len(whole) == 0 && !point) || len(fraction) > 9 || !allDigits(whole) ||
		!allDigits(fraction) ||
		(len(whole) > 1 && whole[0] == '0') {
		return 0, 0, false
	}
	if len(whole) > 0 {
		var err error
		if seconds, err = strconv.ParseInt(string(whole), 10, 64); err != nil {
			return 0, 0, false
		}
	}
	for i := range 9 {
		nanos *= 10
		if i < len(fraction) {
			nanos += int32(fraction[i] - '0')
		}
	}
	if negative {
		seconds, nanos = -seconds, -nanos
	}
	return seconds, nanos, true
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (p *Program) readFieldMask(w *writer) error {
	w.peek()
	at := w.pos
	raw, err := w.text()
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return nil
	}
	for camel := range strings.SplitSeq(text, ",") {
		path := snakeCase(camel)
		if strings.Contains(camel, "_") || !protoreflect.FullName(path).IsValid() {
			return w.fail(at, "%q is not a field mask path", camel)
		}
		w.dst = append(w.dst, tagBytes1)
		w.appendBytes([]byte(path))
	}
	return nil
}
