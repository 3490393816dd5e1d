package query

import (
	"strings"
	"unicode/utf8"
)

const (
	// maxFilterDepth bounds the nesting of a filter's parentheses and negations.
	maxFilterDepth = 32
	// maxFilterTerms bounds the conditions of a filter.
	maxFilterTerms = 512
	// maxMembers bounds the members that lead to a value in a JSON column.
	maxMembers = 16
)

// node is a part of a filter: a *junction, *negation or *restriction or, among the values of a restriction, a *value.
type node any

// junction is the conjunction or disjunction of its parts.
type junction struct {
	any   bool
	parts []node
}

// negation is true where its part is not.
type negation struct{ part node }

// restriction compares a member with a value. operator "": there is no comparator.
type restriction struct {
	at       int
	path     []string // a column and the members in it
	operator string
	arg      node // a *value, or junctions and negations of values
}

// value is a literal.
type value struct {
	at     int
	text   string // unquoted; an escaped asterisk is [literalStar]
	quoted bool
	time   bool // given as timestamp("…")
}

// parser parses a filter by the grammar of AIP-160. It is more liberal in whitespace.
type parser struct {
	lexer lexer
	ahead lexeme // the next token, if it was read
	read  bool
	depth int
	terms int
	// values is set within the parentheses of a restriction's values.
	values bool
}

// parse returns a filter's tree. Its errors are *syntaxError.
func parse(source string) (node, error) {
	if !utf8.ValidString(source) {
		return nil, mistake(0, "the filter is not valid UTF-8")
	}
	if at := strings.IndexRune(source, literalStar); at >= 0 {
		return nil, mistake(at, "%U is not a character", literalStar)
	}
	p := &parser{lexer: lexer{source: source}}
	out, err := p.expression(p.restriction)
	if err != nil {
		return nil, err
	}
	t, err := p.peek()
	if err == nil && t.kind != tokenEnd {
		err = mistake(t.at, "%q is not expected here", t.text)
	}
	return out, err
}

func (p *parser) peek() (lexeme, error) {
	if !p.read {
		before := p.lexer.at
		var err error
		if p.ahead, err = p.lexer.next(false); err != nil {
			p.lexer.at = before // the next call returns the same error
			return lexeme{}, err
		}
		p.read = true
	}
	return p.ahead, nil
}

// next returns the next token.
func (p *parser) next() (lexeme, error) {
	t, err := p.peek()
	p.read = false
	return t, err
}

// keyword consumes the next token if it is the keyword, and reports whether it is.
func (p *parser) keyword(word string) bool {
	if t, err := p.peek(); err != nil || t.kind != tokenText || t.text != word {
		return false
	}
	p.read = false
	return true
}

// mark consumes the next token if it is the mark, and reports whether it is.
func (p *parser) mark(mark string) bool {
	if t, err := p.peek(); err != nil || t.kind != tokenMark || t.text != mark {
		return false
	}
	p.read = false
	return true
}

// expression parses sequences joined by AND. simple parses non-composite parts.
func (p *parser) expression(simple func() (node, error)) (node, error) {
	var parts []node
	for {
		part, err := p.sequence(simple)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if !p.keyword("AND") {
			return join(false, parts), nil
		}
	}
}

// sequence parses adjacent factors, all of which must be true.
func (p *parser) sequence(simple func() (node, error)) (node, error) {
	var parts []node
	for {
		part, err := p.factor(simple)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		t, err := p.peek()
		if err != nil {
			return nil, err
		}
		if t.kind == tokenEnd || t.kind == tokenMark && t.text != "(" && t.text != "-" ||
			t.kind == tokenText && t.text == "AND" {
			return join(false, parts), nil
		}
	}
}

// factor parses terms joined by OR.
func (p *parser) factor(simple func() (node, error)) (node, error) {
	var parts []node
	for {
		part, err := p.term(simple)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if !p.keyword("OR") {
			return join(true, parts), nil
		}
	}
}

// join returns the junction of parts, or the only part.
func join(or bool, parts []node) node {
	if len(parts) == 1 {
		return parts[0]
	}
	return &junction{or, parts}
}

// term parses an optionally negated part.
func (p *parser) term(simple func() (node, error)) (node, error) {
	if p.depth++; p.depth > maxFilterDepth {
		return nil, mistake(p.lexer.at, "it is nested deeper than %d", maxFilterDepth)
	}
	defer func() { p.depth-- }()
	if p.keyword("NOT") || !p.negative() && p.mark("-") {
		part, err := p.term(simple)
		return &negation{part}, err
	}
	if !p.mark("(") {
		if p.terms++; p.terms > maxFilterTerms {
			return nil, mistake(p.lexer.at, "it has more than %d conditions", maxFilterTerms)
		}
		return simple()
	}
	part, err := p.expression(simple)
	if err != nil {
		return nil, err
	}
	return part, p.closed()
}

// negative reports whether the next token is a negative number among values in parentheses.
func (p *parser) negative() bool {
	t, err := p.peek()
	if err != nil || !p.values || t.kind != tokenMark || t.text != "-" {
		return false
	}
	rest := p.lexer.source[t.at+1:]
	return rest != "" && strings.IndexByte(".0123456789", rest[0]) >= 0
}

func (p *parser) closed() error {
	if p.mark(")") {
		return nil
	}
	t, err := p.peek()
	if err != nil {
		return err
	}
	return mistake(t.at, `")" is expected here`)
}

// restriction parses a member, with an operator and a value if there are any.
func (p *parser) restriction() (node, error) {
	t, err := p.next()
	if err != nil {
		return nil, err
	}
	switch {
	case t.kind == tokenEnd:
		return nil, mistake(t.at, "a condition is expected here")
	case t.kind != tokenText && t.kind != tokenString ||
		t.kind == tokenText && (t.text == "AND" || t.text == "OR" || t.text == "NOT"):
		return nil, mistake(t.at, "a condition is expected here, not %q", t.text)
	}
	out := &restriction{at: t.at, path: []string{plain(t)}}
	for p.mark(".") {
		member, err := p.next()
		if err != nil {
			return nil, err
		}
		if member.kind != tokenText && member.kind != tokenString {
			return nil, mistake(member.at, "a member's name is expected after the dot")
		}
		if out.path = append(out.path, plain(member)); len(out.path) > maxMembers+1 {
			return nil, mistake(member.at, "more than %d members are named", maxMembers)
		}
	}
	operator, err := p.peek()
	if err != nil {
		return nil, err
	}
	if operator.kind == tokenMark && operator.text == "(" && operator.at == t.at+len(t.text) {
		return nil, mistake(t.at, "unknown function %q: timestamp(\"…\") follows a comparator", t.text)
	}
	if operator.kind != tokenOperator {
		return out, nil
	}
	p.read = false
	out.operator = operator.text
	out.arg, err = p.arg()
	return out, err
}

// plain returns the text of a token in which asterisks are literal.
func plain(t lexeme) string { return strings.ReplaceAll(t.text, string(literalStar), "*") }

// arg parses the right side of a comparison: a value, or values in parentheses joined by AND, OR and NOT.
func (p *parser) arg() (node, error) {
	p.lexer.space()
	if !strings.HasPrefix(p.lexer.source[p.lexer.at:], "(") {
		return p.value()
	}
	p.lexer.at++
	if p.depth++; p.depth > maxFilterDepth {
		return nil, mistake(p.lexer.at, "it is nested deeper than %d", maxFilterDepth)
	}
	p.values = true
	defer func() { p.depth, p.values = p.depth-1, false }()
	out, err := p.expression(p.listed)
	if err != nil {
		return nil, err
	}
	return out, p.closed()
}

// listed parses a value in parentheses, whose first token the parser has peeked at.
func (p *parser) listed() (node, error) {
	t, err := p.peek()
	if err != nil {
		return nil, err
	}
	p.lexer.at, p.read = t.at, false
	return p.value()
}

// value parses a literal.
func (p *parser) value() (node, error) {
	t, err := p.lexer.next(true)
	if err != nil {
		return nil, err
	}
	switch t.kind {
	case tokenString:
		return &value{at: t.at, text: t.text, quoted: true}, nil
	case tokenText:
		if t.text != "timestamp" || !strings.HasPrefix(p.lexer.source[p.lexer.at:], "(") {
			if strings.HasPrefix(p.lexer.source[p.lexer.at:], "(") {
				return nil, mistake(t.at, "unknown function %q: use timestamp(\"…\"), or quote the text", t.text)
			}
			return &value{at: t.at, text: t.text}, nil
		}
		p.lexer.at++
		inner, err := p.lexer.next(true)
		if err != nil {
			return nil, err
		}
		if inner.kind != tokenString {
			return nil, mistake(inner.at, "timestamp() takes a string")
		}
		return &value{
			at:     t.at,
			text:   inner.text,
			quoted: true,
			time:   true,
		}, p.closed()
	}
	return nil, mistake(t.at, "a value is expected here")
}
