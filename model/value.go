package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Object is a JSON object as expressions see it: int64 for numbers without a fraction, float64 for other numbers,
// string, bool, nil, []any and Object's underlying type.
type Object = map[string]any

// maxExactInt is the largest magnitude at which every integer is a float64.
const maxExactInt = 1 << 53

// DecodeObject parses a JSON object.
func DecodeObject(data []byte) (Object, error) {
	if len(data) == 0 {
		return Object{}, nil
	}
	// Only numbers that a float64 may not represent are parsed from their text, which takes more than half as long
	// again.
	var object Object
	if err := json.Unmarshal(data, &object); err != nil || !exact(object) {
		return decodeExactly(data)
	}
	return Normalize(object).(Object), nil
}

// decodeExactly parses a JSON object with the exact texts of its numbers.
func decodeExactly(data []byte) (Object, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var object Object
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	return Normalize(object).(Object), nil
}

// exact reports whether no number of v may have been rounded to an integer.
func exact(v any) bool {
	switch v := v.(type) {
	case float64:
		return math.Abs(v) < maxExactInt
	case map[string]any:
		for _, value := range v {
			if !exact(value) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(value any) bool { return !exact(value) })
	}
	return true
}

// Normalize returns v with every number as an int64 if it is an integer that fits, else as a float64, so that "10"
// and "10.0" are the same amount to an expression. A float64 above 2^53 becomes the integer that its JSON text
// represents, so that a value is the same before and after it is stored. Normalize changes objects and arrays in
// place.
func Normalize(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return Normalize(f)
	case float64:
		return number64(v)
	case int:
		return int64(v)
	case map[string]any:
		if v == nil {
			return map[string]any{} // JSON's null in place of an object
		}
		for key, value := range v {
			switch value.(type) {
			case string, bool, nil, int64: // unchanged
			default:
				v[key] = Normalize(value)
			}
		}
	case []any:
		for i, value := range v {
			v[i] = Normalize(value)
		}
	}
	return v
}

// number64 returns the number that decoding f's JSON text yields: an int64 if the text is an integer that fits, else
// f.
func number64(f float64) any {
	switch {
	case f != math.Trunc(f) || math.Abs(f) > -math.MinInt64:
		return f
	case math.Abs(f) <= maxExactInt:
		return int64(f)
	}
	i, err := strconv.ParseInt(strconv.FormatFloat(f, 'f', -1, 64), 10, 64) // as encoding/json writes it
	if err != nil {
		return f // 2^63 does not fit
	}
	return i
}

// Encode returns the JSON of an event's data, and the data that decoding that JSON yields. An aggregate decides and
// folds on the latter, so that every node that reads the event folds the same data. Encode may change data.
func Encode(data Object) (text []byte, stored Object, err error) {
	if text, err = json.Marshal(data); err != nil {
		return nil, nil, err
	}
	if storedExactly(data) {
		return text, data, nil
	}
	stored, err = DecodeObject(text)
	return text, stored, err
}

// storedExactly reports whether JSON represents v without loss: strings, integers, booleans, null, and objects and
// arrays of them need not be decoded again.
func storedExactly(v any) bool {
	switch v := v.(type) {
	case nil, bool, int64:
		return true
	case string:
		return utf8.ValidString(v)
	case map[string]any:
		for name, value := range v {
			if !utf8.ValidString(name) || !storedExactly(value) {
				return false
			}
		}
		return v != nil
	case []any:
		return v != nil && !slices.ContainsFunc(v, func(value any) bool { return !storedExactly(value) })
	}
	return false
}

// Bounds of the result of an expression. A result may share values, so that it is larger than the memory that it
// takes.
const (
	maxNativeValues = 1 << 20
	maxNativeBytes  = 16 << 20
)

// quota is the remainder of the bounds of an expression's result.
type quota struct{ values, bytes int }

// errTooLarge reports that the result of an expression exceeds the bounds.
var errTooLarge = fmt.Errorf("it yields more than %d values or %d bytes of texts", maxNativeValues, maxNativeBytes)

// charge subtracts a value with a text.
func (r *quota) charge(text int) error {
	if r.values--; r.values < 0 {
		return errTooLarge
	}
	if r.bytes -= text; r.bytes < 0 {
		return errTooLarge
	}
	return nil
}

// native converts the result of an expression to a plain JSON value.
func native(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.String:
		if len(v) > maxNativeBytes {
			return nil, errTooLarge
		}
	case traits.Mapper, traits.Lister:
		left := quota{maxNativeValues, maxNativeBytes}
		return left.native(v)
	}
	return scalar(v)
}

// native converts a value to a plain JSON value within the bounds.
func (r *quota) native(v ref.Val) (any, error) {
	text, _ := v.(types.String)
	if err := r.charge(len(text)); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case traits.Mapper:
		out := Object{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			name, ok := key.(types.String)
			if !ok {
				return nil, fmt.Errorf("a map key of type %s is not a JSON member name", key.Type().TypeName())
			}
			if err := r.charge(len(name)); err != nil {
				return nil, err
			}
			value, err := r.native(v.Get(key))
			if err != nil {
				return nil, err
			}
			out[string(name)] = value
		}
		return out, nil
	case traits.Lister:
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			value, err := r.native(it.Next())
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	}
	return scalar(v)
}

// scalar converts a scalar to a plain JSON value.
func scalar(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Int:
		return int64(v), nil
	case types.Uint:
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("the unsigned number %d is too large", uint64(v))
		}
		return int64(v), nil
	case types.Double:
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%v is not a JSON number", f)
		}
		// As it will be read back from the journal: 3.0 is 3 in JSON.
		return Normalize(float64(v)), nil
	case types.String:
		return string(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Null:
		return nil, nil
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano), nil
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a value of type %s is not JSON", v.Type().TypeName())
}
