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

// loops reports whether an expression has a comprehension (all, exists, map, filter). Only
// these ask whether they are to end; without one an evaluation is as short as its text.
func loops(a *ast.AST) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.ComprehensionKind))) > 0
}

// isConstant reports whether a checked expression names no variable. None of CEL's functions here
// yields another value the next time.
func isConstant(a *ast.AST) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.IdentKind))) == 0
}
