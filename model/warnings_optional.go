package model

import (
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// conditionalKeywords make members of a payload present or absent under conditions that the check does not follow.
var conditionalKeywords = []string{
	"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas",
	"dependencies", "minProperties", "const", "enum",
}

// warnOfMissing warns of members that an expression reads without has(), and that are missing in some valid cases, in
// which the expression fails.
func (p *parser) warnOfMissing(m *Model) {
	for _, a := range m.aggregates {
		for _, command := range a.commands {
			place := join(join(join("aggregates", a.Name), "commands"), command.Name)
			p.warnOfOptional(command, place)
			p.warnOfNewAggregates(a, command, place)
		}
	}
	for _, v := range m.views {
		p.warnOfNewRows(v)
	}
	for _, u := range p.uses {
		p.warnOfRareMembers(m, u)
	}
}

// usesBelow returns the recorded expressions of a place and the places below it, in the document's order.
func (p *parser) usesBelow(place string) []use {
	return p.places[place]
}

// indexUses records the expressions by each place that contains them.
func (p *parser) indexUses() {
	p.places = map[string][]use{}
	for _, u := range p.uses {
		for place := u.path; place != ""; {
			p.places[place] = append(p.places[place], u)
			place = place[:max(strings.LastIndexAny(place, ".["), 0)]
		}
	}
}

// warnOfOptional warns of optional members of the payload that the command's rules and events read without has().
func (p *parser) warnOfOptional(c *Command, place string) {
	if c.schema == nil || c.Internal { // workflows send what their command needs
		return
	}
	tested := map[string]bool{} // by the rules so far, which precede the events
	check := func(u use) {
		maps.Copy(tested, testedPaths(u.expr))
		for _, path := range unconditionalReads(u.expr, commandVariable) {
			optional := optionalMember(c.raw, path)
			if optional == "" || testsBelow(tested, optional) {
				continue
			}
			p.warn(u.node, u.path, "the schema does not require %s, and without it the expression fails: add it to "+
				"`required`, or write has(%s) ? %s : …", optional, optional, optional)
			tested[optional] = true // once is enough
		}
	}
	for _, u := range p.usesBelow(join(place, "require")) {
		check(u)
	}
	for _, e := range c.emit {
		conditional := slices.ContainsFunc(p.usesBelow(join(e.id, "when")), func(u use) bool {
			check(u)
			return mentions(u.expr, commandVariable)
		})
		for _, u := range p.usesBelow(join(e.id, "data")) {
			if !conditional {
				check(u)
			}
		}
	}
}

// optionalMember returns the first part of a path into a payload that its schema neither requires nor excludes, "" for
// none.
func optionalMember(schema Object, path []string) string {
	for i := 1; i < len(path); i++ {
		for _, keyword := range conditionalKeywords {
			if schema[keyword] != nil {
				return ""
			}
		}
		properties, _ := schema["properties"].(Object)
		property, known := properties[path[i]]
		if !known {
			return ""
		}
		required, _ := schema["required"].([]any)
		if !slices.Contains(required, any(path[i])) {
			return strings.Join(path[:i+1], ".")
		}
		schema, _ = property.(Object)
	}
	return ""
}

// warnOfNewAggregates warns of a command that reads the state without has(): before the aggregate's first event the
// state is empty. A rule that reads the state ends the check, since the others run only if it is met.
func (p *parser) warnOfNewAggregates(a *Aggregate, c *Command, place string) {
	if c.Internal { // workflows send it to aggregates that exist
		return
	}
	for _, part := range []string{"require", "emit"} {
		for _, u := range p.usesBelow(join(place, part)) {
			if !mentions(u.expr, stateVariable) {
				continue
			}
			reads := unconditionalReads(u.expr, stateVariable)
			if len(reads) > 0 && slices.Contains(a.stateMembers(), reads[0][1]) && !tests(u.expr, stateVariable) {
				member := strings.Join(reads[0][:2], ".")
				p.warn(u.node, u.path, "state is empty before the aggregate's first event, and then the expression "+
					"fails: precede it by the rule has(%s), or write has(%s) ? %s : …", member, member, member)
			}
			return
		}
	}
}

// warnOfNewRows warns of a view whose every upsert reads row without has(): before the key's first event it is empty.
func (p *parser) warnOfNewRows(v *View) {
	var failing []use
	for ref, projector := range v.on {
		switch projector.kind {
		case kindFold:
			return // it creates rows
		case kindPatch, kindDelete:
			continue
		case kindUpsert:
		}
		before := len(failing)
		for _, u := range p.usesBelow(join(v.place(ref), "upsert")) {
			reads := unconditionalReads(u.expr, rowVariable)
			if len(reads) == 0 || tests(u.expr, rowVariable) {
				continue
			}
			if _, known := v.Column(reads[0][1]); known {
				failing = append(failing, u)
			}
		}
		if len(failing) == before {
			return
		}
	}
	for _, u := range failing {
		member := strings.Join(unconditionalReads(u.expr, rowVariable)[0][:2], ".")
		p.warn(u.node, u.path, "row is empty before the first event of its key, and then the expression fails: write "+
			"has(%s) ? %s : …", member, member)
	}
}

// warnOfRareMembers warns of members of an event that some of the commands which emit it leave out.
func (p *parser) warnOfRareMembers(m *Model, u use) {
	ref, ok := m.eventAt(u.path)
	if !ok || m.aggregates[ref.Aggregate] == nil {
		return
	}
	if strings.HasPrefix(u.path, "workflows.") { // `when` may select the events that have the member
		parts := strings.Split(u.path, ".")
		if w, ok := m.Workflow(parts[1]); ok && w.when != nil && parts[2] != "when" {
			return
		}
	}
	tested := testedPaths(u.expr)
	for _, path := range unconditionalReads(u.expr, eventVariable) {
		member := strings.Join(path[:2], ".")
		if testsBelow(tested, member) {
			continue
		}
		tested[member] = true
		if with, without := m.emitters(ref, path[1]); len(with) > 0 && len(without) > 0 {
			p.warn(u.node, u.path, "command %q emits %s without the member %q, and then the expression fails: write "+
				"has(%s) ? %s : …", without[0], ref.Aggregate+"."+ref.Event, path[1], member, member)
		}
	}
}

// eventAt returns the event that the variable event is at a place of the document.
func (m *Model) eventAt(path string) (EventRef, bool) {
	parts := strings.Split(path, ".")
	switch {
	case len(parts) > 3 && parts[0] == "aggregates" && parts[2] == "evolve":
		return EventRef{parts[1], parts[3]}, true
	case len(parts) > 4 && parts[0] == "views" && parts[2] == "on":
		return EventRef{parts[3], parts[4]}, true
	case len(parts) > 2 && parts[0] == "workflows":
		if w, ok := m.Workflow(parts[1]); ok {
			return w.On, true
		}
	}
	return EventRef{}, false
}

// emitters returns the commands that emit an event with a member, and without it, ordered by name.
func (m *Model) emitters(ref EventRef, member string) (with, without []string) {
	for _, command := range m.aggregates[ref.Aggregate].Commands() {
		for _, e := range command.emit {
			has := slices.ContainsFunc(e.data, func(f field) bool { return f.name == member })
			switch {
			case e.event != ref.Event:
			case has:
				with = append(with, command.Name)
			default:
				without = append(without, command.Name)
			}
		}
	}
	return with, without
}

// pathOf returns the path of a member: [cmd address street] of cmd.address.street and cmd['address'].street; nil for
// other expressions.
func pathOf(e ast.Expr) []string {
	switch e.Kind() {
	case ast.IdentKind:
		return []string{e.AsIdent()}
	case ast.SelectKind:
		if path := pathOf(e.AsSelect().Operand()); path != nil {
			return append(path, e.AsSelect().FieldName())
		}
	case ast.CallKind:
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.Index, operators.OptIndex, operators.OptSelect:
		default:
			return nil
		}
		if len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
			return nil
		}
		member, text := call.Args()[1].AsLiteral().Value().(string)
		if path := pathOf(call.Args()[0]); path != nil && text {
			return append(path, member)
		}
	default:
	}
	return nil
}

// testedPaths returns the members that an expression tests: by has(), as an optional value, or by `in`.
func testedPaths(e ast.Expr) map[string]bool {
	out := map[string]bool{}
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if path := pathOf(e); e.AsSelect().IsTestOnly() && path != nil {
				out[strings.Join(path, ".")] = true
			}
		case ast.CallKind:
			call := e.AsCall()
			switch call.FunctionName() {
			case operators.OptIndex, operators.OptSelect:
				if path := pathOf(e); path != nil {
					out[strings.Join(path, ".")] = true
				}
			case operators.In:
				member, ok := call.Args()[0], call.Args()[0].Kind() == ast.LiteralKind
				if path := pathOf(call.Args()[1]); path != nil && ok {
					if name, ok := member.AsLiteral().Value().(string); ok {
						out[strings.Join(append(path, name), ".")] = true
					}
				}
			}
		default:
		}
	}))
	return out
}

// testsBelow reports whether a member, or one in it, is tested.
func testsBelow(tested map[string]bool, member string) bool {
	for path := range tested {
		if path == member || strings.HasPrefix(path, member+".") {
			return true
		}
	}
	return false
}

// tests reports whether an expression tests a member of a variable, or uses the variable as a whole.
func tests(e ast.Expr, variable string) bool {
	if testsBelow(testedPaths(e), variable) {
		return true
	}
	members := 0
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if len(pathOf(e)) == 2 && pathOf(e)[0] == variable {
			members++
		}
	}))
	return members < count(e, variable)
}

// mentions reports whether an expression uses a variable.
func mentions(e ast.Expr, variable string) bool { return count(e, variable) > 0 }

func count(e ast.Expr, variable string) (uses int) {
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && e.AsIdent() == variable {
			uses++
		}
	}))
	return uses
}

// unconditionalReads returns the paths of a variable's members that each evaluation of an expression reads. Operands
// beside one that depends on the variable are left out, since that one may imply that they are present.
func unconditionalReads(e ast.Expr, variable string) (out [][]string) {
	if declaredNames(e)[variable] {
		return nil
	}
	var visit func(e ast.Expr)
	visit = func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if path := plainPath(e); len(path) > 1 && path[0] == variable {
				out = append(out, path)
				return
			}
			if !e.AsSelect().IsTestOnly() {
				visit(e.AsSelect().Operand())
			}
		case ast.CallKind:
			call := e.AsCall()
			if path := plainPath(e); len(path) > 1 && path[0] == variable {
				out = append(out, path)
				return
			}
			if call.IsMemberFunction() {
				visit(call.Target())
			}
			for i, arg := range call.Args() {
				if !isConditional(call, i, variable) {
					visit(arg)
				}
			}
		case ast.ListKind:
			for _, element := range e.AsList().Elements() {
				visit(element)
			}
		case ast.MapKind:
			for _, entry := range e.AsMap().Entries() {
				visit(entry.AsMapEntry().Value())
			}
		case ast.ComprehensionKind:
			visit(e.AsComprehension().IterRange())
		default:
		}
	}
	visit(e)
	return out
}

// isConditional reports whether an argument of a call is evaluated only under a condition, which may be one on the
// variable.
func isConditional(call ast.CallExpr, i int, variable string) bool {
	args := call.Args()
	switch call.FunctionName() {
	case operators.Conditional:
		return i > 0
	case operators.LogicalAnd, operators.LogicalOr:
		return slices.ContainsFunc(args, func(other ast.Expr) bool {
			return other.ID() != args[i].ID() && mentions(other, variable)
		})
	}
	return false
}

// plainPath is [pathOf] for a path that fails if a member is missing.
func plainPath(e ast.Expr) []string {
	for inner := e; ; {
		switch inner.Kind() {
		case ast.SelectKind:
			if inner.AsSelect().IsTestOnly() {
				return nil
			}
			inner = inner.AsSelect().Operand()
		case ast.CallKind:
			if inner.AsCall().FunctionName() != operators.Index {
				return nil
			}
			inner = inner.AsCall().Args()[0]
		default:
			return pathOf(e)
		}
	}
}
