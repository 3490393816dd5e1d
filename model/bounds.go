package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Bounds of a document with its aliases expanded. A document that exceeds one is rejected with the line where it
// does.
const (
	// maxDocumentBytes bounds a document before it is parsed.
	maxDocumentBytes = 1 << 20
	// maxNodes bounds the values, lists, mappings and keys.
	maxNodes = 100_000
	// maxTextBytes bounds the total length of texts.
	maxTextBytes = 2 * maxDocumentBytes
	// maxDepth bounds the nesting.
	maxDepth = 64
	// maxIssues bounds the reported mistakes.
	maxIssues = 200
	// maxCheckTime bounds the duration of a check. It is tested between expressions and schemas, each of which takes
	// less than a second. Real models take milliseconds.
	maxCheckTime = 30 * time.Second
	// maxExpressionBytes bounds an expression, and maxNesting the nesting of lists, mappings and loops, since the
	// time of CEL's checker grows with the third power of these. CEL's parser bounds any other nesting at 250.
	maxExpressionBytes = 8 << 10
	maxNesting         = 32
	// maxRegexpSteps bounds the instructions of a compiled regular expression, which a repetition could grow to 128
	// MiB (Go's regexp/syntax).
	maxRegexpSteps = 10_000
	// maxAllRegexpSteps bounds the total instructions of a document's regular expressions.
	maxAllRegexpSteps = 200_000
	// maxSchemaSteps bounds the subschemas of a JSON Schema with its references expanded, since each reference to a
	// reference may double them.
	maxSchemaSteps = 10_000
)

// size is the size of a node with its aliases expanded.
type size struct{ nodes, bytes, depth int }

// sizer measures a document before its aliases are followed.
type sizer struct {
	*document
	known map[*yaml.Node]size // of anchors
	open  map[*yaml.Node]bool // anchors that contain the current node
}

// bounded reports whether the document is within the bounds, and rejects it otherwise.
func (d *document) bounded(root *yaml.Node) bool {
	s := sizer{document: d, known: map[*yaml.Node]size{}, open: map[*yaml.Node]bool{}}
	_, ok := s.measure(root, 0)
	return ok
}

// measure returns the size of a node at a depth. ok is false if a bound is exceeded.
func (s *sizer) measure(n *yaml.Node, depth int) (total size, ok bool) {
	if depth > maxDepth {
		s.reject(n, "", "column %d: the nesting is deeper than %d", n.Column, maxDepth)
		return size{}, false
	}
	if n.Kind == yaml.AliasNode {
		return s.measureAlias(n, depth)
	}
	if n.Anchor != "" {
		s.open[n] = true
		defer delete(s.open, n)
	}
	total = size{nodes: 1, bytes: len(n.Value), depth: 1}
	for _, child := range n.Content {
		inner, ok := s.measure(child, depth+1)
		if !ok {
			return size{}, false
		}
		total.nodes, total.bytes, total.depth = total.nodes+
			inner.nodes, total.bytes+inner.bytes, max(total.depth, inner.depth+1)
		switch {
		case total.nodes > maxNodes:
			s.reject(child, "", "column %d: the document has more than %d values, with its aliases expanded",
				child.Column, maxNodes)
			return size{}, false
		case total.bytes > maxTextBytes:
			s.reject(child, "", "column %d: the document's texts are longer than %d bytes, with its aliases expanded",
				child.Column, maxTextBytes)
			return size{}, false
		}
	}
	if n.Anchor != "" {
		s.known[n] = total
	}
	return total, true
}

func (s *sizer) measureAlias(n *yaml.Node, depth int) (size, bool) {
	if s.open[n.Alias] {
		s.reject(n, "", "column %d: the alias *%s is within its own anchor", n.Column, n.Value)
		return size{}, false
	}
	total, ok := s.known[n.Alias] // anchors come before their aliases
	if ok && depth+total.depth > maxDepth+1 {
		s.reject(n, "", "column %d: the nesting is deeper than %d, with aliases expanded", n.Column, maxDepth)
		return size{}, false
	}
	return total, ok
}

// errTooLong is the cause of a check that maxCheckTime has ended.
var errTooLong = fmt.Errorf("the check takes longer than %v: make the document smaller", maxCheckTime)

// late reports whether the check has exceeded its time, or its context has ended. It rejects n when it first detects
// that the time is exceeded.
func (p *parser) late(n *yaml.Node, path string) bool {
	if !p.ended && p.ctx.Err() != nil {
		p.ended = true
		if errors.Is(context.Cause(p.ctx), errTooLong) {
			p.reject(n, path, "%v", errTooLong)
		}
	}
	return p.ended
}

// boundedRegexp returns the number of steps of a regular expression, or an error if it is malformed or too large.
func boundedRegexp(text string) (steps int, err error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0, err
	}
	if steps = regexpSteps(parsed); steps > maxRegexpSteps {
		return 0, fmt.Errorf("the regular expression has more than %d steps, with its repeats expanded", maxRegexpSteps)
	}
	return steps, nil
}

// regexpBudget counts the steps of a document's regular expressions while the document is checked.
type regexpBudget struct{ used int }

// charge adds a regular expression's steps. Errors are as for boundedRegexp.
func (b *regexpBudget) charge(text string) error {
	steps, err := boundedRegexp(text)
	if err != nil {
		return err
	}
	if b.used += steps; b.used > maxAllRegexpSteps {
		return fmt.Errorf("the document's regular expressions have more than %d steps together", maxAllRegexpSteps)
	}
	return nil
}

// regexpSteps estimates the instructions of a compiled expression.
func regexpSteps(re *syntax.Regexp) int {
	steps := 1
	if re.Op == syntax.OpLiteral {
		steps = len(re.Rune)
	}
	for _, sub := range re.Sub {
		steps = min(steps+regexpSteps(sub), math.MaxInt32)
	}
	if re.Op == syntax.OpRepeat {
		steps = min(steps*max(re.Min, re.Max, 1), math.MaxInt32)
	}
	return steps
}

// nesting returns the depth to which lists, mappings and loops are nested.
func nesting(e ast.Expr) (depth int) {
	var inner []ast.Expr
	switch e.Kind() {
	case ast.ListKind:
		depth, inner = 1, e.AsList().Elements()
	case ast.MapKind:
		depth = 1
		for _, entry := range e.AsMap().Entries() {
			inner = append(inner, entry.AsMapEntry().Key(), entry.AsMapEntry().Value())
		}
	case ast.ComprehensionKind:
		loop := e.AsComprehension()
		depth, inner = 1, []ast.Expr{
			loop.IterRange(), loop.AccuInit(), loop.LoopCondition(), loop.LoopStep(), loop.Result(),
		}
	case ast.SelectKind:
		inner = []ast.Expr{e.AsSelect().Operand()}
	case ast.CallKind:
		inner = e.AsCall().Args()
		if e.AsCall().IsMemberFunction() {
			inner = append(slices.Clip(inner), e.AsCall().Target())
		}
	}
	deepest := 0
	for _, one := range inner {
		deepest = max(deepest, nesting(one))
	}
	return depth + deepest
}

// chargeMatches charges the regular expressions that are literals in an expression.
func (b *regexpBudget) chargeMatches(expr ast.Expr) (err error) {
	ast.PreOrderVisit(expr, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != "matches" {
			return
		}
		call := e.AsCall()
		for _, argument := range call.Args()[max(0, len(call.Args())-1):] {
			if argument.Kind() != ast.LiteralKind {
				continue
			}
			if text, ok := argument.AsLiteral().Value().(string); ok && err == nil {
				err = b.charge(text)
			}
		}
	}))
	return err
}

// engine returns a jsonschema.RegexpEngine that charges b until checked is called. After that it compiles the regular
// expressions in payloads (format "regex"), each within its own bound.
func (b *regexpBudget) engine() (engine jsonschema.RegexpEngine, checked func()) {
	return func(text string) (jsonschema.Regexp, error) {
		steps, err := boundedRegexp(text)
		if err == nil && b != nil {
			err = b.charge(text)
		}
		if err != nil {
			return nil, err
		}
		compiled, err := regexp.Compile(text)
		if err != nil {
			return nil, err
		}
		return pattern{compiled, steps}, nil
	}, func() { b = nil }
}

// schemaSizer counts the subschemas of a JSON Schema with its references expanded.
type schemaSizer struct {
	root  any
	known map[string]int // of references, by their target; 0: being counted
}

// boundedSchema reports whether a schema is within the bound. A recursive reference counts once, since the nesting of
// the payload bounds it.
func boundedSchema(root any) bool {
	s := schemaSizer{root: root, known: map[string]int{}}
	return s.steps(root) <= maxSchemaSteps
}

func (s *schemaSizer) steps(node any) int {
	total := 1
	switch n := node.(type) {
	case Object:
		for key, value := range n {
			reference, ok := value.(string)
			if ok && (key == "$ref" || key == "$dynamicRef") {
				total += s.follow(reference)
			} else {
				total += s.steps(value)
			}
			total = min(total, math.MaxInt32)
		}
	case []any:
		for _, value := range n {
			total = min(total+s.steps(value), math.MaxInt32)
		}
	}
	return total
}

func (s *schemaSizer) follow(reference string) int {
	if steps, met := s.known[reference]; met {
		return steps
	}
	s.known[reference] = 0
	target := s.root
	for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(reference, "#"), "/"), "/") {
		object, ok := target.(Object)
		if !ok || part == "" {
			break
		}
		// Anchors and ids are not followed: they count as the whole document.
		if inner, ok := object[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]; ok {
			target = inner
		}
	}
	steps := s.steps(target)
	s.known[reference] = steps
	return steps
}
