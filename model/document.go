package model

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/internal/excerpt"
)

// Issue is one mistake in a document.
type Issue struct {
	// File is the name of the document that was passed to Parse.
	File string
	// Line counts from 1; 0 if the mistake has no line.
	Line int
	// Path leads to the mistake: "aggregates.wallet.commands.open".
	Path string
	// Message describes the mistake and the correction.
	Message string
}

// String returns "file:line: path: message", as compilers write it.
func (i Issue) String() string {
	text := fmt.Sprintf("%s:%d: ", i.File, i.Line)
	if i.Path != "" {
		text += i.Path + ": "
	}
	return text + i.Message
}

// Error is the list of a document's mistakes, by line.
type Error struct{ Issues []Issue }

// Error returns the mistakes, one per line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Issues))
	for i, issue := range e.Issues {
		lines[i] = issue.String()
	}
	return strings.Join(lines, "\n")
}

// document collects the mistakes found while a YAML tree is parsed.
type document struct {
	file   string
	issues []Issue
}

// reject adds a mistake, up to maxIssues. Long texts in it are truncated.
func (d *document) reject(n *yaml.Node, path, format string, args ...any) {
	if len(d.issues) == maxIssues {
		return
	}
	d.issues = append(d.issues, newIssue(d.file, n.Line, path, format, args...))
}

// list is text of a message that is longer than a name.
type list string

// newIssue returns a mistake. Long texts in it are truncated.
func newIssue(file string, line int, path, format string, args ...any) Issue {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = excerpt.Text(text, maxQuoted)
		}
	}
	return Issue{
		File:    file,
		Line:    line,
		Path:    excerpt.Text(path, maxMessage),
		Message: excerpt.Text(fmt.Sprintf(format, args...), maxMessage),
	}
}

// maxQuoted and maxMessage bound a text of the document in a message, and a message, in encoded bytes (see
// [excerpt.Text]).
const maxQuoted, maxMessage = excerpt.Name, 1 << 10

// err returns the mistakes by line, or nil.
func (d *document) err() error {
	if len(d.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(d.issues, func(a, b Issue) int { return a.Line - b.Line })
	return &Error{Issues: d.issues}
}

// members yields a mapping's keys and values in the document's order. It rejects any other node, duplicate keys and,
// if allowed is not empty, keys that are not in it.
func (d *document) members(n *yaml.Node, path string, allowed ...string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		n := deref(n)
		if n.Kind != yaml.MappingNode {
			d.reject(n, path, "expected a mapping")
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], deref(n.Content[i+1])
			switch {
			case seen[key.Value]:
				d.reject(key, path, "duplicate key %q", key.Value)
				continue
			case len(allowed) > 0 && !slices.Contains(allowed, key.Value):
				d.reject(key, path, "unknown key %q (known: %s)", key.Value, strings.Join(allowed, ", "))
				continue
			}
			seen[key.Value] = true
			if !yield(key, value) {
				return
			}
		}
	}
}

// memberOfMapping returns a mapping's value of that name, or the mapping if it has none.
func memberOfMapping(n *yaml.Node, name string) *yaml.Node {
	n = deref(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return deref(n.Content[i+1])
		}
	}
	return n
}

// items yields a sequence's entries with their paths.
func (d *document) items(n *yaml.Node, path string) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		n := deref(n)
		if n.Kind != yaml.SequenceNode {
			d.reject(n, path, "expected a list")
			return
		}
		for i, item := range n.Content {
			if !yield(fmt.Sprintf("%s[%d]", path, i), deref(item)) {
				return
			}
		}
	}
}

// scalar returns a scalar's text.
func (d *document) scalar(n *yaml.Node, path string) (string, bool) {
	if n = deref(n); n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.reject(n, path, "expected a single value")
		return "", false
	}
	return n.Value, true
}

// flag returns a boolean. It rejects any other value, including a missing one.
func (d *document) flag(n *yaml.Node, path string) bool {
	n = deref(n)
	var value bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&value) != nil {
		d.reject(n, path, "expected true or false")
	}
	return value
}

// namePattern is the pattern of names in a model: safe as a subject token, a SQL identifier and a CEL member.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

func (d *document) name(n *yaml.Node, path string) bool {
	if !namePattern.MatchString(n.Value) {
		d.reject(n, path, "%q is not a name (lower-case letters, digits and '_', at most 63, a letter first)", n.Value)
		return false
	}
	return true
}

// deref follows YAML aliases.
func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
