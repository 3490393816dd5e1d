package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mutant is a file with one change.
type mutant struct {
	path, source string // source is the line that is changed
	line         int
	constant     bool // coverage does not know constants
	change       string
	text         []byte // of the changed file
	form         form   // of the switch, if one binary can hold this mutant beside others
	number       int    // of the switch, from 1
	place        int    // among the file's mutants
	function     string // which contains it; "": none
	occurrence   int    // among equal changes of equal lines of the function
}

// String names the mutant independently of its line's number.
func (m *mutant) String() string {
	place := strings.TrimSpace(filepath.Base(m.path) + " " + m.function)
	return place + ": " + m.change + " in " + strings.ReplaceAll(strings.TrimSpace(m.source), "`", "'")
}

// swaps are the operators that are exchanged.
var swaps = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR}, token.GTR: {token.GEQ, token.LEQ},
	token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL}, token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL},
}

// finder collects the mutants of a file.
type finder struct {
	path      string
	text      []byte
	lines     []string
	positions *token.FileSet
	function  string
	inConst   bool
	inBlock   map[ast.Node]bool // statements that another statement can replace
	found     []*mutant
	seen      map[string]int
}

// mutants returns all changes of a file.
func mutants(path string) ([]*mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &finder{
		path:      path,
		text:      text,
		lines:     strings.Split(string(text), "\n"),
		positions: token.NewFileSet(),
		inBlock:   map[ast.Node]bool{},
		seen:      map[string]int{},
	}
	file, err := parser.ParseFile(f.positions, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		f.function = ""
		if function, ok := decl.(*ast.FuncDecl); ok {
			f.function = function.Name.Name
		}
		general, ok := decl.(*ast.GenDecl)
		f.inConst = ok && general.Tok == token.CONST
		if ok && general.Tok == token.IMPORT {
			continue
		}
		ast.Inspect(decl, f.visit)
	}
	return f.found, nil
}

func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		f.block(n.List)
	case *ast.CaseClause:
		f.block(n.Body)
	case *ast.CommClause:
		f.block(n.Body)
	case *ast.BinaryExpr:
		for _, other := range swaps[n.Op] {
			f.replace(n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), other.String(),
				n.Op.String()+" is "+other.String(), f.binary(n, other))
		}
	case *ast.IfStmt:
		f.replace(n.Cond.Pos(), n.Cond.End(), "false && ("+f.slice(n.Cond)+")", "the condition is false",
			f.span(n.Cond, "!mutationOn(%d) && (", ")"))
	case *ast.ExprStmt, *ast.IncDecStmt:
		f.replace(n.Pos(), n.End(), "", "the statement is removed", f.statement(n))
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			f.replace(n.Pos(), n.End(), "", "the assignment is removed", f.statement(n))
		}
	case *ast.DeferStmt:
		f.replace(n.Pos(), n.End(), "", "the deferred call is removed", f.statement(n))
	case *ast.ReturnStmt:
		if len(n.Results) > 0 {
			last := n.Results[len(n.Results)-1]
			if name, ok := last.(*ast.Ident); ok && name.Name == "err" {
				f.replace(last.Pos(), last.End(), "nil", "no error is returned", f.span(last, "mutationErr(%d, ", ")"))
			}
		}
	case *ast.CallExpr:
		if name, ok := n.Fun.(*ast.Ident); ok && (name.Name == "min" || name.Name == "max") {
			other := map[string]string{"min": "max", "max": "min"}[name.Name]
			f.replace(name.Pos(), name.End(), other, name.Name+" is "+other, form{})
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.replace(n.Pos(), n.X.Pos(), "", "! is removed", f.negated(n))
		}
	case *ast.BasicLit:
		f.literal(n)
	}
	return true
}

func (f *finder) block(list []ast.Stmt) {
	for _, statement := range list {
		f.inBlock[statement] = true
	}
}

// literal changes a number of a constant declaration.
func (f *finder) literal(n *ast.BasicLit) {
	value, err := strconv.ParseInt(n.Value, 0, 64)
	if n.Kind != token.INT || err != nil || !f.inConst || value < 1 {
		return
	}
	f.replace(n.Pos(), n.End(), strconv.FormatInt(value*7, 10), fmt.Sprintf("%s is %d", n.Value, value*7), form{})
}

func (f *finder) slice(n ast.Node) string {
	return string(f.text[f.positions.Position(n.Pos()).Offset:f.positions.Position(n.End()).Offset])
}

func (f *finder) replace(from, to token.Pos, with, change string, switched form) {
	at := f.positions.Position(from)
	changed := string(f.text[:at.Offset]) + with + string(f.text[f.positions.Position(to).Offset:])
	m := &mutant{
		path:     f.path,
		source:   f.lines[at.Line-1],
		line:     at.Line,
		constant: f.inConst,
		change:   change,
		text:     []byte(changed),
		form:     switched,
		function: f.function,
		place:    len(f.found),
	}
	m.occurrence = f.seen[m.String()]
	f.seen[m.String()]++
	f.found = append(f.found, m)
}
