package model

import (
	"slices"

	"cel.dev/cel-go/common/ast"
)

// memberOf returns the path of an expression that is only a member of a variable, such as event.owner; nil for any
// other. Most expressions of views and evolve rules are such members.
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

// loops reports whether an expression has a comprehension (all, exists, map, filter). Only comprehensions check the
// context; an evaluation without one is as short as its text.
func loops(a *ast.AST) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.ComprehensionKind))) > 0
}

// isConstant reports whether a checked expression uses no variable. All of CEL's functions here are deterministic.
func isConstant(a *ast.AST) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.IdentKind))) == 0
}
