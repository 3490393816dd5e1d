package model

import (
	"slices"
	"strconv"
)

// maxInteger is the largest magnitude of an integer that every JSON reader represents exactly, and that no other
// integer is rounded to (RFC 7493 §2.2).
const maxInteger = 1<<53 - 1

// boundIntegers returns a copy of a JSON Schema in which numbers that must be integers are at most [maxInteger] in
// magnitude, since a larger one may have been rounded in transit.
func boundIntegers(schema any) any {
	switch schema := schema.(type) {
	case Object:
		out := make(Object, len(schema)+2)
		for key, value := range schema {
			switch key {
			case "const", "enum", "default", "examples": // values, not schemas
				out[key] = value
			case "properties", "patternProperties", "$defs", "definitions", "dependentSchemas": // schemas by name
				named, ok := value.(Object)
				if !ok {
					out[key] = value
					continue
				}
				copied := make(Object, len(named))
				for name, inner := range named {
					copied[name] = boundIntegers(inner)
				}
				out[key] = copied
			default:
				out[key] = boundIntegers(value)
			}
		}
		if integersAlone(schema["type"]) {
			if f, ok := number(schema["maximum"]); !ok || f > maxInteger {
				out["maximum"] = int64(maxInteger)
			}
			if f, ok := number(schema["minimum"]); !ok || f < -maxInteger {
				out["minimum"] = int64(-maxInteger)
			}
		}
		return out
	case []any:
		out := make([]any, len(schema))
		for i, value := range schema {
			out[i] = boundIntegers(value)
		}
		return out
	}
	return schema
}

// integersAlone reports whether a schema's type admits integers and no other numbers.
func integersAlone(kind any) bool {
	if list, ok := kind.([]any); ok {
		return slices.Contains(list, any("integer")) && !slices.Contains(list, any("number"))
	}
	return kind == "integer"
}

// Rounded reports whether v contains an integer that JSON readers with float64 numbers would round. place is its
// path: "lines[2].total", "" for v itself.
func Rounded(v any) (place string, found bool) {
	switch v := v.(type) {
	case int64:
		if v > maxExactInt || v < -maxExactInt {
			f := float64(v)
			return "", (f >= 1<<63 || int64(f) != v) && number64(f) != any(v)
		}
	case Object:
		for name, value := range v {
			if inner, found := Rounded(value); found {
				if inner != "" && inner[0] != '[' {
					inner = "." + inner
				}
				return name + inner, true
			}
		}
	case []any:
		for i, value := range v {
			if inner, found := Rounded(value); found {
				if inner != "" && inner[0] != '[' {
					inner = "." + inner
				}
				return "[" + strconv.Itoa(i) + "]" + inner, true
			}
		}
	}
	return "", false
}
