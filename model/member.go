package model

import (
	"slices"

	"cel.dev/cel-go/common/ast"
)

// memberOf returns the path of an expression that is a member of a variable and no
// more, such as event.owner; nil for any other. Most expressions of views and evolve
// rules are.
func memberOf(e ast.Expr) []string {
	var path []string
	for e.Kind() == ast.SelectKind {
		sel := e.AsSelect()
		if sel.IsTestOnly() { // has(event.owner)
			return nil
		}
		path, e = append(path, sel.FieldName()), sel.Operand()
	}
	if e.Kind() != ast.IdentKind || len(path) == 0 {
		return nil
	}
	path = append(path, e.AsIdent())
	slices.Reverse(path)
	return path
}

// scalar returns what stands at the path, as the evaluator would yield it; false for
// whatever the evaluator has more to say of: what is missing, objects, arrays.
func scalar(vars map[string]any, path []string) (any, bool) {
	if path == nil {
		return nil, false
	}
	var value any = vars
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = object[name]; !ok {
			return nil, false
		}
	}
	switch value.(type) {
	case string, int64, bool, nil:
		return value, true
	}
	return nil, false
}
