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
	slices.SortStableFunc(out, func(a, b Issue) int { return a.Line - b.Line })
	return out
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
