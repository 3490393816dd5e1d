package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Object is a JSON object as expressions see it: int64 for numbers without a
// fraction, float64 for the rest, string, bool, nil, []any and Object's own
// underlying type.
type Object = map[string]any

// maxExactInt is the largest magnitude at which every integer is a float64.
const maxExactInt = 1 << 53

// DecodeObject parses a JSON object.
func DecodeObject(data []byte) (Object, error) {
	if len(data) == 0 {
		return Object{}, nil
	}
	// Only a number that a float64 may not hold has to be read by its text, which takes
	// more than half as long again.
	var object Object
	if err := json.Unmarshal(data, &object); err != nil || !exact(object) {
		return decodeExactly(data)
	}
	return Normalize(object).(Object), nil
}

// decodeExactly parses a JSON object by the texts of its numbers.
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

// Normalize returns v with every number as int64 where it has no fraction, else
// as float64, so that "10" and "10.0" are the same amount to an expression. Objects
// and arrays are changed where they are.
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
		if v == math.Trunc(v) && math.Abs(v) <= maxExactInt {
			return int64(v)
		}
		return v
	case int:
		return int64(v)
	case map[string]any:
		if v == nil {
			return map[string]any{} // JSON's null, where an object was wanted
		}
		for key, value := range v {
			switch value.(type) {
			case string, bool, nil, int64: // as they are
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

// native turns what an expression yields into a plain JSON value.
func native(v ref.Val) (any, error) {
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
	case traits.Mapper:
		out := Object{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			name, ok := key.(types.String)
			if !ok {
				return nil, fmt.Errorf("a map key of type %s is not a JSON member name", key.Type().TypeName())
			}
			value, err := native(v.Get(key))
			if err != nil {
				return nil, err
			}
			out[string(name)] = value
		}
		return out, nil
	case traits.Lister:
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			value, err := native(it.Next())
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a value of type %s is not JSON", v.Type().TypeName())
}
