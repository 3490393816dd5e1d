package model

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"go.yaml.in/yaml/v3"
)

// warnOfPayload warns of a payload that the command's schema always refuses.
func (p *parser) warnOfPayload(m *Model, n *yaml.Node, path string, on EventRef, command *Command, payload fields) {
	set := map[string]bool{}
	for _, f := range payload {
		set[f.name] = true
		want, is := command.kindOfMember(f.name), m.kindOf(on, f.expr)
		fits := want == is || want == unknown || is == unknown || want == "number" && is == "integer" ||
			want == "integer" && is == "number" // it may have no fraction
		if !fits {
			p.warn(memberOfMapping(n, f.name), join(path, f.name),
				"the values are of JSON type %s, and command %q requires %s", is, command.Name, want)
		}
		if u, ok := p.lastUse(join(path, f.name)); ok {
			property, _, _ := propertyAt(command.raw, []string{commandVariable, f.name})
			p.warnOfLiteral(u.node, u.path, f.name, command, property, u.expr)
		}
	}
	members := map[string][]string{}
	command.members(members)
	if known, closed := members[commandVariable]; closed {
		slices.Sort(known)
		for _, f := range payload {
			if !slices.Contains(known, f.name) {
				p.warn(n, path, "command %q refuses the member %q (it accepts %s)", command.Name, f.name,
					list(strings.Join(known, ", ")))
			}
		}
	}
	required, _ := command.raw["required"].([]any)
	for _, member := range required {
		if name, ok := member.(string); ok && !set[name] {
			p.warn(n, path, "command %q requires the member %q", command.Name, name)
		}
	}
}

// lastUse returns the expression at a path, which is one of the last that was parsed.
func (p *parser) lastUse(path string) (use, bool) {
	for i := len(p.uses) - 1; i >= max(0, len(p.uses)-maxPayloadMembers); i-- {
		if p.uses[i].path == path {
			return p.uses[i], true
		}
	}
	return use{}, false
}

// maxPayloadMembers bounds the members of a workflow's payload whose literals are checked.
const maxPayloadMembers = 256

// warnOfFailure warns of a workflow's expression that reads failure before a step can have been refused.
func (p *parser) warnOfFailure(u use, path string, reads []memberRead) {
	_, place, _ := strings.Cut(path, ".") // after the workflow's name
	if !strings.HasPrefix(place, "when") && !strings.HasPrefix(place, "steps") || strings.Contains(place, ".undo.") {
		return
	}
	if slices.ContainsFunc(reads, func(r memberRead) bool { return r.variable == failureVariable }) {
		p.warn(u.node, u.path, "failure is empty here: it has a value in undo and on_failure")
	}
}

// warnOfURL warns of a webhook whose URL has no scheme.
func (p *parser) warnOfURL(n *yaml.Node, path string) {
	if len(p.uses) == 0 || p.uses[len(p.uses)-1].path != path { // the expression is rejected
		return
	}
	tree := p.uses[len(p.uses)-1].expr
	for tree.Kind() == ast.CallKind && tree.AsCall().FunctionName() == operators.Add {
		tree = tree.AsCall().Args()[0]
	}
	if tree.Kind() != ast.LiteralKind {
		return
	}
	text, ok := tree.AsLiteral().Value().(string)
	if ok && !strings.HasPrefix(text, "https://") && !strings.HasPrefix(text, "http://") {
		p.warn(n, path, "the URL begins with %q: it needs a scheme, such as https://", text)
	}
}

// warnOfSelfStarts warns of workflows that always start themselves again, by the events of the commands that they or
// the workflows which they start submit.
func (p *parser) warnOfSelfStarts(m *Model) {
	if p.stored {
		return
	}
	starts := map[EventRef][]*Workflow{} // by the event
	for _, w := range m.workflows {
		if w.when == nil {
			starts[w.On] = append(starts[w.On], w)
		}
	}
	for _, w := range m.workflows {
		if w.when != nil {
			continue
		}
		seen := map[*Workflow]bool{}
		next := []*Workflow{w}
		for len(next) > 0 && !seen[w] {
			current := next[0]
			next = next[1:]
			for ref := range m.eventsOf(current) {
				for _, started := range starts[ref] {
					if !seen[started] {
						seen[started] = true
						next = append(next, started)
					}
				}
			}
		}
		if seen[w] {
			p.warn(&yaml.Node{Line: w.line}, join("workflows", w.Name),
				"the workflow's commands emit the event that starts it, %s: it starts itself again until its depth is "+
					"limited; add a `when`", w.On.Aggregate+"."+w.On.Event)
		}
	}
}

// eventsOf returns the events that the commands of a workflow's steps always emit.
func (m *Model) eventsOf(w *Workflow) map[EventRef]bool {
	out := map[EventRef]bool{}
	for step := range Leaves(w.Steps) {
		if step.Submit == nil {
			continue
		}
		for _, e := range m.aggregates[step.Submit.Aggregate].commands[step.Submit.Command].emit {
			if e.when == nil {
				out[EventRef{step.Submit.Aggregate, e.event}] = true
			}
		}
	}
	return out
}
