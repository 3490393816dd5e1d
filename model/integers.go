package model

import (
	"slices"
	"strconv"
)

// maxInteger is the largest magnitude of an integer that every JSON reader represents exactly, and that no other
// integer is rounded to (RFC 7493 §2.2).
const maxInteger = 1<<53 - 1

// boundIntegers returns a copy of a JSON Schema in which numbers that must be integers are at most [maxInteger] in
// magnitude, since a larger one may have been rounded in transit. stored: see [ParseStored].
func boundIntegers(schema any, stored bool) any {
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
					copied[name] = boundIntegers(inner, stored)
				}
				out[key] = copied
			default:
				out[key] = boundIntegers(value, stored)
			}
		}
		if integersAlone(schema["type"]) {
			if limit, set := schema["maximum"]; !set || beyond(limit, 1, stored) {
				out["maximum"] = int64(maxInteger)
			}
			if limit, set := schema["minimum"]; !set || beyond(limit, -1, stored) {
				out["minimum"] = int64(-maxInteger)
			}
		}
		return out
	case []any:
		out := make([]any, len(schema))
		for i, value := range schema {
			out[i] = boundIntegers(value, stored)
		}
		return out
	}
	return schema
}

// beyond reports whether a limit is outside of the bound of that sign. A limit that is no number is left to the
// metaschema, which rejects it; in a stored document it does not count, as in earlier versions.
func beyond(limit any, sign float64, stored bool) bool {
	f, ok := number(limit)
	return !ok && stored || ok && f*sign > maxInteger
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
