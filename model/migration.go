package model

import (
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Migration determines how a workflow's instances that started with earlier model revisions continue with the
// revision that contains the migration.
type Migration struct {
	// Any is set if instances of all revisions migrate; otherwise those of Revisions do.
	Any       bool
	Revisions []string
	// Rename maps old step names to new ones.
	Rename map[string]string
	// Drop lists old steps that the workflow no longer has. Their effects are not undone.
	Drop []string
}

// Covers reports whether instances of a revision migrate.
func (m *Migration) Covers(revision string) bool {
	return m != nil && (m.Any || slices.Contains(m.Revisions, revision))
}

// Step returns the current name of an old step, "" for a dropped one. ok is false if the step has no current name and
// is not dropped, so that the instance cannot migrate.
func (m *Migration) Step(w *Workflow, old string) (name string, ok bool) {
	if slices.Contains(m.Drop, old) {
		return "", true
	}
	name = old
	if renamed, ok := m.Rename[old]; ok {
		name = renamed
	}
	return name, w.HasStep(name)
}

// HasStep reports whether the workflow has a step of that name, including `on_failure`.
func (w *Workflow) HasStep(name string) bool {
	for _, steps := range [][]Step{w.Steps, w.OnFailure} {
		for s := range Leaves(steps) {
			if s.Name == name {
				return true
			}
		}
	}
	return false
}

// revisionForm is the pattern of [Model.Revision].
var revisionForm = regexp.MustCompile(`^[0-9a-f]{12}$`)

// migration parses a workflow's `migrate`; names are its steps.
func (p *parser) migration(n *yaml.Node, path string, names map[string]bool) *Migration {
	m := &Migration{Rename: map[string]string{}}
	said := false
	for key, value := range p.members(n, path, "from", "rename", "drop") {
		switch path := join(path, key.Value); key.Value {
		case "from":
			said = true
			if m.Any = value.Kind == yaml.ScalarNode && value.Value == "any"; !m.Any {
				m.Revisions = p.revisions(value, path)
			}
		case "rename":
			p.renames(m, value, path, names)
		case "drop":
			for path, item := range p.items(value, path) {
				if name, ok := p.scalar(item, path); ok && names[name] {
					p.reject(item, path, "the workflow has the step %q", name)
				} else if ok {
					m.Drop = append(m.Drop, name)
				}
			}
		}
	}
	if !said {
		p.reject(n, path, "a migration needs `from`: any, or a list of model revisions")
	}
	for _, name := range m.Drop {
		if m.Rename[name] != "" {
			p.reject(n, path, "the step %q is renamed and dropped", name)
		}
	}
	return m
}

func (p *parser) revisions(n *yaml.Node, path string) []string {
	var revisions []string
	for path, item := range p.items(n, path) {
		switch text, ok := p.scalar(item, path); {
		case ok && revisionForm.MatchString(text):
			revisions = append(revisions, text)
		case ok:
			p.reject(item, path, "%q is not a model revision such as 0123456789ab", text)
		}
	}
	return revisions
}

// renames parses the mapping of old step names to new ones.
func (p *parser) renames(m *Migration, n *yaml.Node, path string, names map[string]bool) {
	targets := map[string]bool{}
	for key, value := range p.members(n, path) {
		path := join(path, key.Value)
		name, ok := p.scalar(value, path)
		switch {
		case !ok:
		case !names[name]:
			p.reject(value, path, "the workflow has no step %q", name)
		case names[key.Value]:
			p.reject(key, path, "the workflow still has the step %q", key.Value)
		case targets[name]:
			p.reject(value, path, "two steps are renamed to %q", name)
		default:
			m.Rename[key.Value], targets[name] = name, true
		}
	}
}
