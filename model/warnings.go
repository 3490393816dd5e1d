package model

import (
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"go.yaml.in/yaml/v3"
)

// use is a compiled expression with its place in the document.
type use struct {
	node *yaml.Node
	path string
	expr ast.Expr
}

// warn adds a probable mistake, up to maxIssues. Documents that were in use before have none.
func (p *parser) warn(n *yaml.Node, path, format string, args ...any) {
	if p.stored || len(p.warnings) == maxIssues {
		return
	}
	p.warnings = append(p.warnings, newIssue(p.file, n.Line, path, format, args...))
}

// warnOfExpressions adds the probable mistakes of a valid document's expressions.
func (p *parser) warnOfExpressions(m *Model) {
	p.indexUses()
	p.warnOfStates(m)
	p.warnOfMissing(m)
	for _, u := range p.uses {
		read := membersRead(u.expr)
		p.warnOfMembers(m, u, read)
		p.warnOfOperands(m, u)
		p.warnOfCondition(m, u)
		p.warnOfComparisons(m, u)
		p.warnOfNestedMembers(m, u)
		p.warnOfRow(m, u)
		if workflow, ok := strings.CutPrefix(u.path, "workflows."); ok {
			p.warnOfFailure(u, workflow, read)
		}
	}
}

// warnOfMembers warns of members that their variable never has. An expression that reads such a member fails, and
// has() of it is always false. Members of older events' data are unknown, so that has() of any member of event is
// allowed.
func (p *parser) warnOfMembers(m *Model, u use, reads []memberRead) {
	members := m.membersAt(u.path)
	for _, read := range reads {
		if read.variable == eventVariable && (read.tested || testsMember(u.expr, read)) {
			continue
		}
		if read.variable == eventVariable {
			m.readsEvent(u, read.member)
		}
		known, closed := members[read.variable]
		if !closed || slices.Contains(known, read.member) {
			continue
		}
		slices.Sort(known)
		p.warn(u.node, u.path, "%s never has the member %q (it has %s)", read.variable, read.member,
			list(strings.Join(known, ", ")))
	}
}

// membersAt returns the members that the variables of the expression at a path can have. Variables whose members are
// not known are missing.
func (m *Model) membersAt(path string) map[string][]string {
	out := map[string][]string{metaVariable: slices.Collect(maps.Keys(metaMembers))}
	parts := strings.Split(path, ".")
	switch {
	case len(parts) > 3 && parts[0] == "aggregates" && parts[2] == "commands":
		a := m.aggregates[parts[1]]
		out[stateVariable] = a.stateMembers()
		if command := a.commands[parts[3]]; command != nil {
			command.members(out)
		}
	case len(parts) > 3 && parts[0] == "aggregates" && parts[2] == "evolve":
		a := m.aggregates[parts[1]]
		out[stateVariable] = a.stateMembers()
		m.eventMembers(EventRef{a.Name, parts[3]}, out)
	case len(parts) > 4 && parts[0] == "views" && parts[2] == "on":
		if v, ok := m.View(parts[1]); ok {
			for _, column := range v.Columns {
				out[rowVariable] = append(out[rowVariable], column.Name)
			}
		}
		m.eventMembers(EventRef{parts[3], parts[4]}, out)
	case len(parts) > 2 && parts[0] == "workflows":
		out[failureVariable] = []string{"step", "message"}
		if w, ok := m.Workflow(parts[1]); ok {
			m.eventMembers(w.On, out)
		}
	}
	return out
}

// stateMembers returns the members that the aggregate's events set.
func (a *Aggregate) stateMembers() []string {
	out := []string{}
	for _, changes := range a.evolve {
		for _, member := range changes {
			out = append(out, member.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// members adds the payload's members, if the schema excludes others.
func (c *Command) members(out map[string][]string) {
	properties, _ := c.raw["properties"].(Object)
	if c.schema == nil {
		out[commandVariable] = []string{}
		return
	}
	if c.raw["additionalProperties"] != false || c.raw["patternProperties"] != nil {
		return
	}
	out[commandVariable] = slices.Collect(maps.Keys(properties))
}

// eventMembers adds the members of an event's data, if commands of the model emit it.
func (m *Model) eventMembers(ref EventRef, out map[string][]string) {
	a := m.aggregates[ref.Aggregate]
	if a == nil {
		return
	}
	var members []string
	emitted := false
	for _, command := range a.commands {
		for _, e := range command.emit {
			if e.event != ref.Event {
				continue
			}
			emitted = true
			for _, member := range e.data {
				members = append(members, member.name)
			}
		}
	}
	if emitted {
		slices.Sort(members)
		out[eventVariable] = slices.Compact(members)
	}
}

// memberRead is a member of a variable that an expression reads; tested: by has() or as an optional value.
type memberRead struct {
	variable, member string
	tested           bool
}

// membersRead returns the members of variables that an expression reads. Names that a loop of the expression declares
// are no variables.
func membersRead(e ast.Expr) (out []memberRead) {
	declared := declaredNames(e)
	add := func(operand ast.Expr, member string, tested bool) {
		if operand.Kind() == ast.IdentKind && !declared[operand.AsIdent()] {
			out = append(out, memberRead{operand.AsIdent(), member, tested})
		}
	}
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			add(e.AsSelect().Operand(), e.AsSelect().FieldName(), e.AsSelect().IsTestOnly())
		case ast.CallKind:
			call := e.AsCall()
			optional := call.FunctionName() == "_?._" || call.FunctionName() == "_[?_]"
			if !optional && call.FunctionName() != "_[_]" || len(call.Args()) != 2 ||
				call.Args()[1].Kind() != ast.LiteralKind {
				return
			}
			if member, ok := call.Args()[1].AsLiteral().Value().(string); ok {
				add(call.Args()[0], member, optional)
			}
		}
	}))
	return out
}

// declaredNames returns the names that the loops of an expression declare.
func declaredNames(e ast.Expr) map[string]bool {
	declared := map[string]bool{}
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.ComprehensionKind {
			loop := e.AsComprehension()
			declared[loop.IterVar()], declared[loop.IterVar2()], declared[loop.AccuVar()] = true, true, true
		}
	}))
	return declared
}

// testsMember reports whether the expression asks with has() for the member that it reads.
func testsMember(e ast.Expr, read memberRead) bool {
	read.tested = true
	return slices.Contains(membersRead(e), read)
}
