package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// activeVariable is the environment variable that holds the number of the active mutant.
const activeVariable = "HEADGATE_MUTANT"

// switchFile is a file that is added to the package. A binary contains all mutants that are switchable: the go command
// links once for all of them.
const switchFile = `package %s

import mutationOS "os"
import mutationStrconv "strconv"

var mutationActive = func() int { n, _ := mutationStrconv.Atoi(mutationOS.Getenv("` + activeVariable +
	`")); return n }()

func mutationOn(n int) bool { return mutationActive == n }

func mutationErr(n int, err error) error {
	if mutationActive == n {
		return nil
	}
	return err
}
`

// insertion is a text that a switch inserts at an offset of a file. Insertions nest as the spans that they enclose.
type insertion struct {
	at, from, to int // from and to: the span that is enclosed
	order        int
	open         bool
	text         string
}

// form is the text around a mutant's span in which the mutant is switched; %d is its number. "": not switchable.
type form struct {
	from, to      int
	before, after string
}

// enclose returns a file's text with the switches of mutants, which are ordered by their places.
func enclose(text []byte, all []*mutant) string {
	var insertions []insertion
	for i, m := range all {
		number := func(s string) string { return strings.ReplaceAll(s, "%d", strconv.Itoa(m.number)) }
		insertions = append(insertions,
			insertion{
				at:    m.form.from,
				from:  m.form.from,
				to:    m.form.to,
				order: i,
				open:  true,
				text:  number(m.form.before),
			},
			insertion{
				at:    m.form.to,
				from:  m.form.from,
				to:    m.form.to,
				order: i,
				text:  number(m.form.after),
			})
	}
	slices.SortFunc(insertions, func(a, b insertion) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.open != b.open: // what ends here ends before the next begins
			if a.open {
				return 1
			}
			return -1
		case a.open: // the outer one begins first
			return cmp.Or(cmp.Compare(b.to, a.to), cmp.Compare(a.order, b.order))
		default: // the inner one ends first
			return cmp.Or(cmp.Compare(b.from, a.from), cmp.Compare(b.order, a.order))
		}
	})
	var out strings.Builder
	last := 0
	for _, in := range insertions {
		out.Write(text[last:in.at])
		out.WriteString(in.text)
		last = in.at
	}
	out.Write(text[last:])
	return out.String()
}

// span returns the form of a switch around a node.
func (f *finder) span(n ast.Node, before, after string) form {
	if f.inConst {
		return form{}
	}
	return form{f.positions.Position(n.Pos()).Offset, f.positions.Position(n.End()).Offset, before, after}
}

// negated is the form of an expression that has the opposite value.
func (f *finder) negated(n ast.Node) form { return f.span(n, "((", ") != mutationOn(%d))") }

// statement is the form of a statement that is left out.
func (f *finder) statement(n ast.Node) form {
	if !f.inBlock[n] {
		return form{}
	}
	return f.span(n, "if !mutationOn(%d) { ", " }")
}

// binary is the form of an expression whose operator is another one.
func (f *finder) binary(n *ast.BinaryExpr, other token.Token) form {
	left, right := f.slice(n.X), f.slice(n.Y)
	repeated := !strings.Contains(left+right, "\n") // lines keep their numbers
	boundary := fmt.Sprintf("(%s) == (%s)", left, right)
	switch {
	case n.Op == token.EQL, n.Op == token.NEQ:
		return f.negated(n)
	case n.Op == token.LSS && other == token.GEQ, n.Op == token.GTR && other == token.LEQ,
		n.Op == token.LEQ && other == token.GTR, n.Op == token.GEQ && other == token.LSS:
		return f.negated(n)
	case !repeated:
		return form{}
	case n.Op == token.LSS, n.Op == token.GTR:
		return f.span(n, "((", ") || mutationOn(%d) && "+boundary+")")
	case n.Op == token.LEQ, n.Op == token.GEQ:
		return f.span(n, "((", ") && !(mutationOn(%d) && "+boundary+"))")
	case n.Op == token.LAND:
		return f.span(n, "(mutationOn(%d) && (("+left+") || ("+right+")) || ", ")")
	case n.Op == token.LOR:
		return f.span(n, "(mutationOn(%d) && ("+left+") && ("+right+") || !mutationOn(%d) && (", "))")
	default: // arithmetic: the types and constants are not known
		return form{}
	}
}
