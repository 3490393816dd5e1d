// Package rights parses and compares rights: actions that a credential allows, each for all resources
// or narrowed to some. It does not know which actions exist.
package rights

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ActionInternal is the action of the right to send commands that a model declares internal. It is
// narrowed to an aggregate type or a command, or not at all, but never by a wildcard.
const ActionInternal = "command.internal"

// ActionSubmit is the action of the right to send commands that are not internal.
const ActionSubmit = "command.submit"

// Right is an action that may be narrowed to resources.
type Right struct {
	// Action is an action such as "query.read".
	Action string
	// Resources is a resource's name, or a prefix with a final '*'. "" means all resources, and
	// calls that name none. Where a method's policy names parts of resources, it may be
	// RESOURCE.PART: "transfer.request" for a command of an aggregate type.
	Resources string
}

var (
	actionPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)
	// commandsPattern matches what rights of commands may be narrowed to: an aggregate type, one of
	// its commands, or a prefix of either with a final '*'.
	commandsPattern = regexp.MustCompile(
		`^(\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*|\.)?\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?)$`,
	)
)

// ErrInvalid is wrapped by the error of an invalid right.
var ErrInvalid = errors.New("invalid right")

// Parse parses "action" or "action:resources". It accepts some rights that cannot match
// anything; [Right.Check] is stricter.
func Parse(s string) (Right, error) {
	action, resources, narrowed := strings.Cut(s, ":")
	if !actionPattern.MatchString(action) {
		return Right{}, fmt.Errorf("%w %q: want an action such as query.read", ErrInvalid, s)
	}
	if narrowed && (resources == "" || strings.Contains(strings.TrimSuffix(resources, "*"), "*")) {
		return Right{}, fmt.Errorf("%w %q: want a resource after the colon, or a prefix with a final *",
			ErrInvalid, s)
	}
	right := Right{Action: action, Resources: resources}
	if action == ActionInternal {
		return right, right.Check()
	}
	return right, nil
}

// Check returns an error that wraps [ErrInvalid] for a right that no call needs, or that reads
// like another one: issuing it is a mistake. Resources other than those of commands may be any
// text, because paths are percent-decoded before they are matched ("shelves/a b"), without control
// and invisible characters, and without spaces at either end.
func (r Right) Check() error {
	if r.Resources == "" {
		return nil
	}
	switch r.Action {
	case ActionInternal:
		if strings.HasSuffix(r.Resources, "*") || !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: want AGGREGATE or AGGREGATE.COMMAND after the colon, without a wildcard",
				ErrInvalid, r)
		}
	case ActionSubmit:
		if !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: want AGGREGATE or AGGREGATE.COMMAND after the colon, or a prefix with a final *",
				ErrInvalid, r)
		}
	default:
		if !isPrintable(r.Resources) {
			return fmt.Errorf(
				"%w %q: a resource consists of printable characters in UTF-8, without spaces at either end",
				ErrInvalid, r,
			)
		}
	}
	return nil
}

// isPrintable reports whether a text is UTF-8 without control and format characters, without spaces
// other than U+0020, and without spaces at either end.
func isPrintable(text string) bool {
	return utf8.ValidString(text) && strings.TrimSpace(text) == text &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// String returns the right in the form that [Parse] parses.
func (r Right) String() string {
	if r.Resources == "" {
		return r.Action
	}
	return r.Action + ":" + r.Resources
}

// Covers reports whether the right covers the resource; "": a call that names none.
func (r Right) Covers(resource string) bool {
	if r.Resources == "" {
		return true
	}
	if beginning, ok := strings.CutSuffix(r.Resources, "*"); ok {
		return resource != "" && strings.HasPrefix(resource, beginning)
	}
	return r.Resources == resource
}

// CoversPart reports whether the right covers a part of a resource. A resource whose own name has a
// dot is covered only by a right for all resources: the text before the dot of a right is the
// resource.
func (r Right) CoversPart(resource, part []byte) bool {
	if r.Resources == "" {
		return true
	}
	if len(resource) == 0 || bytes.IndexByte(resource, '.') >= 0 {
		return false
	}
	name, rest, dotted := strings.Cut(r.Resources, ".")
	if !dotted {
		if beginning, ok := strings.CutSuffix(name, "*"); ok {
			return beginsWith(resource, beginning)
		}
		return string(resource) == name
	}
	if string(resource) != name || len(part) == 0 {
		return false
	}
	if beginning, ok := strings.CutSuffix(rest, "*"); ok {
		return beginsWith(part, beginning)
	}
	return string(part) == rest
}

func beginsWith(text []byte, beginning string) bool {
	return len(text) >= len(beginning) && string(text[:len(beginning)]) == beginning
}

// Includes reports whether the right covers everything that another one covers, so that a holder of r
// can grant the other.
func (r Right) Includes(other Right) bool {
	if r.Action != other.Action {
		return false
	}
	if r.Resources == "" || r.Resources == other.Resources {
		return true
	}
	if beginning, ok := strings.CutSuffix(r.Resources, "*"); ok {
		return other.Resources != "" && strings.HasPrefix(strings.TrimSuffix(other.Resources, "*"), beginning)
	}
	// An aggregate type has all of its commands. Of other actions, a dot is a part of the resource's name.
	return (r.Action == ActionSubmit || r.Action == ActionInternal) && !strings.Contains(r.Resources, ".") &&
		strings.HasPrefix(other.Resources, r.Resources+".")
}
