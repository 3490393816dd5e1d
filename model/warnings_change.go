package model

import (
	"slices"
	"strconv"
	"strings"
)

// eventRead is a place of the document that reads a member of an event's data.
type eventRead struct {
	line         int
	path, member string
}

// readsEvent records that a rule reads a member of an event. Expressions of workflows read new events only, unless
// the workflow starts from the beginning.
func (m *Model) readsEvent(u use, member string) {
	if len(m.reads) > maxIssues {
		return
	}
	parts := strings.Split(u.path, ".")
	var ref EventRef
	switch {
	case len(parts) > 3 && parts[0] == "aggregates" && (parts[2] == "evolve" || parts[2] == "events"):
		ref = EventRef{parts[1], parts[3]}
	case len(parts) > 4 && parts[0] == "views" && parts[2] == "on":
		ref = EventRef{parts[3], parts[4]}
	case len(parts) > 2 && parts[0] == "workflows":
		w, ok := m.Workflow(parts[1])
		if !ok || !w.FromBeginning {
			return
		}
		ref = w.On
	default:
		return
	}
	if len(m.reads[ref]) < maxIssues {
		m.reads[ref] = append(m.reads[ref], eventRead{u.node.Line, u.path, member})
	}
}

// ChangeWarnings returns the probable mistakes of replacing a model by m: events that previous stored and that m's
// rules cannot read. At most 200, by line.
func (m *Model) ChangeWarnings(previous *Model) []Issue {
	var out []Issue
	warn := func(line int, path, format string, args ...any) {
		if len(out) < maxIssues {
			out = append(out, newIssue(m.file, line, path, format, args...))
		}
	}
	for _, before := range previous.Aggregates() {
		now, ok := m.aggregates[before.Name]
		if !ok {
			warn(1, join("aggregates", before.Name),
				"the aggregate is missing: its stored events are retained, and nothing reads them")
			continue
		}
		for _, event := range before.eventTypes() {
			ref := EventRef{before.Name, event}
			path := join(join(join("aggregates", before.Name), "evolve"), event)
			if _, ok := now.evolve[event]; !ok {
				warn(now.line, path, "the event is missing: stored ones no longer change the state")
				continue
			}
			if was, is := before.EventVersion(event), now.EventVersion(event); is < was {
				warn(now.line, path, "stored events have version %d, and the document has upcasts to version %d only",
					was, is)
			}
			members := map[string][]string{}
			previous.eventMembers(ref, members)
			if known, emitted := members[eventVariable]; emitted {
				m.warnOfReads(warn, ref, now.history[event], before.EventVersion(event), known)
			}
		}
	}
	for _, w := range m.workflows {
		if before, ok := previous.Workflow(w.Name); ok && before.Identity() == w.Identity() {
			warnOfSteps(warn, before, w, previous.Revision)
		}
	}
	slices.SortStableFunc(out, func(a, b Issue) int { return a.Line - b.Line })
	return out
}

// warnOfSteps warns of a workflow's steps that instances of the previous revision may have reached, and that the
// workflow does not have any more.
func warnOfSteps(
	warn func(line int, path, format string, args ...any), before, now *Workflow, revision string,
) {
	path := join("workflows", now.Name)
	for _, steps := range [][]Step{before.Steps, before.OnFailure} {
		for step := range Leaves(steps) {
			if now.HasStep(step.Name) {
				continue
			}
			renamed := renamedStep(before, now, step)
			if now.Migration.Covers(revision) {
				if _, ok := now.Migration.Step(now, step.Name); !ok {
					warn(now.line, path, "instances of revision %s that have reached the step %q cannot migrate: add "+
						"the "+
						"step to `rename` or `drop` of `migrate`", revision, step.Name)
				}
				continue
			}
			if renamed != "" {
				warn(now.line, path, "the step %q is missing, and %q is new: instances that started earlier keep the "+
					"earlier steps. If it is renamed, write `migrate: {from: any, rename: {%s: "+
					"%s}}`", step.Name, renamed,
					step.Name, renamed)
			}
		}
	}
}

// renamedStep returns the new step that does what a missing one did, "" for none.
func renamedStep(before, now *Workflow, missing Step) string {
	for _, steps := range [][]Step{now.Steps, now.OnFailure} {
		for step := range Leaves(steps) {
			if !before.HasStep(step.Name) && step.text() == missing.text() {
				return step.Name
			}
		}
	}
	return ""
}

// warnOfReads warns of members that rules and upcasts read, and that stored events of a version, which have the known
// members, lack.
func (m *Model) warnOfReads(
	warn func(line int, path, format string, args ...any), ref EventRef, history schemaHistory, version int,
	known []string,
) {
	versions := map[int][]string{version: known} // the members of each version of the data
	for ; version < history.version(); version++ {
		step := history.upcasts[version-1]
		next := slices.DeleteFunc(slices.Clone(versions[version]), func(member string) bool {
			return slices.Contains(step.drop, member)
		})
		for _, f := range step.set {
			next = append(next, f.name)
		}
		versions[version+1] = next
	}
	for _, read := range m.reads[ref] {
		if _, place, ok := strings.Cut(read.path, ".upcasts["); ok {
			index, _, _ := strings.Cut(place, "]")
			upcast, _ := strconv.Atoi(index)
			if members, stored := versions[upcast+1]; stored && !slices.Contains(members, read.member) {
				warn(read.line, read.path, "events that are stored already lack the member %q in version %d",
					read.member, upcast+1)
			}
			continue
		}
		if !slices.Contains(versions[version], read.member) {
			warn(read.line, read.path, "events that are stored already lack the member %q: add an upcast of %s, or "+
				"test has(event.%s)", read.member, ref.Event, read.member)
		}
	}
}

// text identifies what a step does.
func (s Step) text() string {
	switch {
	case s.Submit != nil:
		return "submit " + s.Submit.Aggregate + "." + s.Submit.Command + " " + s.Submit.id.sourceText()
	case s.Webhook != nil:
		return "webhook " + s.Webhook.url.sourceText()
	case s.Wait != nil:
		return "wait " + s.Wait.length.sourceText()
	}
	return ""
}
