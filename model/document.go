package model

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/headgate/headgate/internal/excerpt"
	"go.yaml.in/yaml/v3"
)

// Issue is one mistake in a document.
type Issue struct {
	// File is the name that the document was given to Parse under.
	File string
	// Line counts from 1; 0 when the mistake is not at one line.
	Line int
	// Path leads to the mistake: "aggregates.wallet.commands.open".
	Path string
	// Message says what is wrong and what would be right.
	Message string
}

// String is "file:line: path: message", as compilers write it.
func (i Issue) String() string {
	text := fmt.Sprintf("%s:%d: ", i.File, i.Line)
	if i.Path != "" {
		text += i.Path + ": "
	}
	return text + i.Message
}

// Error is a document's mistakes, by line.
type Error struct{ Issues []Issue }

// Error lists the mistakes, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Issues))
	for i, issue := range e.Issues {
		lines[i] = issue.String()
	}
	return strings.Join(lines, "\n")
}

// document collects the mistakes found on the way through a YAML tree.
type document struct {
	file   string
	issues []Issue
}

// reject adds a mistake, up to maxIssues. Long texts in it are cut.
func (d *document) reject(n *yaml.Node, path, format string, args ...any) {
	if len(d.issues) == maxIssues {
		return
	}
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = excerpt.Text(text, maxQuoted)
		}
	}
	message := excerpt.Text(fmt.Sprintf(format, args...), maxMessage)
	d.issues = append(d.issues, Issue{File: d.file, Line: n.Line, Path: excerpt.Text(path, maxMessage), Message: message})
}

// maxQuoted and maxMessage bound a text of the document in a message, and a message, in
// encoded bytes (see [excerpt.Text]).
const maxQuoted, maxMessage = excerpt.Name, 1 << 10

// err returns the mistakes found, by line, or nil.
func (d *document) err() error {
	if len(d.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(d.issues, func(a, b Issue) int { return a.Line - b.Line })
	return &Error{Issues: d.issues}
}

// members yields a mapping's keys and values in the document's order and
// rejects anything else, repeated keys, and keys that are not among allowed
// (if any are given).
func (d *document) members(n *yaml.Node, path string, allowed ...string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		n := deref(n)
		if n.Kind != yaml.MappingNode {
			d.reject(n, path, "a mapping is wanted here")
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], deref(n.Content[i+1])
			switch {
			case seen[key.Value]:
				d.reject(key, path, "%q stands here twice", key.Value)
				continue
			case len(allowed) > 0 && !slices.Contains(allowed, key.Value):
				d.reject(key, path, "%q is not known here (known: %s)", key.Value, strings.Join(allowed, ", "))
				continue
			}
			seen[key.Value] = true
			if !yield(key, value) {
				return
			}
		}
	}
}

// items yields a sequence's entries with their paths.
func (d *document) items(n *yaml.Node, path string) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		n := deref(n)
		if n.Kind != yaml.SequenceNode {
			d.reject(n, path, "a list is wanted here")
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
		d.reject(n, path, "a single value is wanted here")
		return "", false
	}
	return n.Value, true
}

// flag returns a scalar that is true or false. Anything else is rejected, a missing value too.
func (d *document) flag(n *yaml.Node, path string) bool {
	n = deref(n)
	var value bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&value) != nil {
		d.reject(n, path, "true or false is wanted here")
	}
	return value
}

// namePattern is what names in a model look like: safe as a subject token, an
// SQL identifier and a CEL member.
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
