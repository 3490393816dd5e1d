package events

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/internal/journal"
)

const (
	// maxStruct bounds the size of data as a Struct, in bytes on the wire, and maxLevels its nesting: protobuf's
	// libraries refuse more than 100 messages in each other, and a level is three.
	maxStruct, maxLevels = 1 << 20, 32
	// memberBytes and numberBytes estimate the wire size of a member without its name and value, and of a value
	// without its text.
	memberBytes, numberBytes = 8, 12
	// maxExact is the magnitude below which every integer is a double.
	maxExact = 1 << 53
)

const (
	// valueBytes and objectBytes bound the memory of a value of a Struct beside its text, and that of an object's
	// members in addition.
	valueBytes, objectBytes = 144, 384
	// maxWeight bounds the memory of a Struct of maxStruct.
	maxWeight = 16 * maxStruct
)

// weightOf bounds from above the memory that a message of the journal takes as an event in a response. A number in
// JSON, of two bytes with its comma, is fifty times as large as a value of a Struct.
func weightOf(m journal.Message) int {
	made := valueBytes
	for _, b := range m.Data {
		switch b {
		case ',', '[':
			made += valueBytes
		case '{':
			made += valueBytes + objectBytes
		}
	}
	return storedBytes + 2*len(m.Data) + min(made, maxWeight)
}

// structOf returns a JSON object as a Struct, and whether that represents it exactly.
func structOf(data []byte) (*structpb.Struct, bool) {
	if !utf8.Valid(data) {
		return nil, false
	}
	d := decoder{Decoder: json.NewDecoder(bytes.NewReader(data)), surrogates: surrogateEscape(data)}
	d.UseNumber()
	value, ok := d.value(0)
	return value.GetStructValue(), ok && value.GetStructValue() != nil
}

// decoder builds a Struct from JSON.
type decoder struct {
	*json.Decoder

	size       int
	surrogates bool // the text has escapes of surrogates, which may be unpaired
}

// value returns the next value; false: a Struct cannot represent it exactly.
func (d *decoder) value(level int) (*structpb.Value, bool) {
	token, err := d.Token()
	if d.size += numberBytes; err != nil || d.size > maxStruct || level > maxLevels {
		return nil, false
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return d.object(level + 1)
		}
		return d.list(level + 1)
	case string:
		return structpb.NewStringValue(token), d.text(token)
	case json.Number:
		number, exact := double(string(token))
		return structpb.NewNumberValue(number), exact
	case bool:
		return structpb.NewBoolValue(token), true
	}
	return structpb.NewNullValue(), true
}

func (d *decoder) object(level int) (*structpb.Value, bool) {
	object := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for d.More() {
		token, err := d.Token()
		name, _ := token.(string)
		if d.size += memberBytes; err != nil || !d.text(name) || object.Fields[name] != nil {
			return nil, false
		}
		value, ok := d.value(level)
		if !ok {
			return nil, false
		}
		object.Fields[name] = value
	}
	_, err := d.Token()
	return structpb.NewStructValue(object), err == nil
}

func (d *decoder) list(level int) (*structpb.Value, bool) {
	list := &structpb.ListValue{}
	for d.More() {
		value, ok := d.value(level)
		if !ok {
			return nil, false
		}
		list.Values = append(list.Values, value)
	}
	_, err := d.Token()
	return structpb.NewListValue(list), err == nil
}

// text counts a text, and reports whether it is the one that was stored.
func (d *decoder) text(text string) bool {
	d.size += len(text)
	return !d.surrogates || !strings.ContainsRune(text, utf8.RuneError)
}

// double returns a number, and whether it is not rounded, if it is an integer.
func double(text string) (float64, bool) {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, false
	}
	if strings.ContainsAny(text, ".eE") || number > -maxExact && number < maxExact {
		return number, true
	}
	return number, strconv.FormatFloat(number, 'f', 0, 64) == text
}

// surrogateEscape reports whether JSON may have an escape of a surrogate, such as \ud800.
func surrogateEscape(data []byte) bool {
	for {
		at := bytes.Index(data, []byte(`\u`))
		if at < 0 || at+4 > len(data) {
			return false
		}
		if digit := data[at+3] | 0x20; data[at+2]|0x20 == 'd' && (digit == '8' || digit == '9' || digit >= 'a') {
			return true
		}
		data = data[at+2:]
	}
}
