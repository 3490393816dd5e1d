package model

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// violation describes what a schema requires. Numbers are written without an exponent where JSON does, and times
// without the format of package time.
func violation(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Minimum:
		return bound("minimum", k.Got, k.Want)
	case *kind.Maximum:
		return bound("maximum", k.Got, k.Want)
	case *kind.ExclusiveMinimum:
		return fmt.Sprintf("exclusiveMinimum: got %s, want more than %s", decimal(k.Got), decimal(k.Want))
	case *kind.ExclusiveMaximum:
		return fmt.Sprintf("exclusiveMaximum: got %s, want less than %s", decimal(k.Got), decimal(k.Want))
	case *kind.Format:
		if example, ok := timeExamples[k.Want]; ok {
			return fmt.Sprintf("'%v' is not a valid %s, such as %s", k.Got, k.Want, example)
		}
		return fmt.Sprintf("'%v' is not a valid %s: %v", k.Got, k.Want, k.Err)
	}
	return k.LocalizedString(english)
}

// timeExamples are values of JSON Schema's formats of times (RFC 3339).
var timeExamples = map[string]string{
	"date": "2026-01-31", "time": "12:00:00Z", "date-time": "2026-01-31T12:00:00Z", "duration": "P1DT12H",
}

func bound(keyword string, got, want *big.Rat) string {
	return fmt.Sprintf("%s: got %s, want %s", keyword, decimal(got), decimal(want))
}

func decimal(r *big.Rat) string {
	if r.IsInt() && r.Num().IsInt64() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// rejectSchema adds the mistakes of a schema that the metaschema rejects, each at its line.
func (p *parser) rejectSchema(n *yaml.Node, path string, err error) {
	var invalid *jsonschema.SchemaValidationError
	var cause *jsonschema.ValidationError
	if !errors.As(err, &invalid) || !errors.As(invalid.Err, &cause) {
		p.reject(n, path, "not a JSON Schema: %s", strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	places := map[string][]string{}
	var order [][]string
	for leaf := range leaves(cause) {
		place := strings.Join(leaf.InstanceLocation, ".")
		if places[place] == nil {
			order = append(order, leaf.InstanceLocation)
		}
		places[place] = append(places[place], violation(leaf.ErrorKind))
	}
	for _, location := range order {
		place := strings.Join(location, ".")
		p.reject(nodeAt(n, location), join(path, place), "not a JSON Schema: %s", strings.Join(places[place], ", or "))
	}
}

// leaves yields the innermost causes of a validation error, which alone describe what is wrong.
func leaves(err *jsonschema.ValidationError) func(func(*jsonschema.ValidationError) bool) {
	return func(yield func(*jsonschema.ValidationError) bool) {
		var walk func(err *jsonschema.ValidationError) bool
		walk = func(err *jsonschema.ValidationError) bool {
			if len(err.Causes) == 0 {
				return yield(err)
			}
			for _, cause := range err.Causes {
				if !walk(cause) {
					return false
				}
			}
			return true
		}
		walk(err)
	}
}

// nodeAt returns the node at a location below n, or the last one on the way.
func nodeAt(n *yaml.Node, location []string) *yaml.Node {
	n = deref(n)
	for _, name := range location {
		next := child(n, name)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// child returns the value under a key of a mapping, or at an index of a sequence; nil for none.
func child(n *yaml.Node, name string) *yaml.Node {
	if n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return deref(n.Content[i])
		}
		return nil
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return deref(n.Content[i+1])
		}
	}
	return nil
}
