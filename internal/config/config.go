// Package config reads a process's settings from one YAML file. It rejects invalid settings, with
// their lines and the reasons, before anything starts.
//
// Settings are plain structs with yaml tags. An unknown setting is an error, and so is a value of
// another type; the struct's Validate checks values, with [AtLeast] and [Within].
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// FieldError reports an invalid setting.
type FieldError struct {
	// Field is the setting's key; a path of keys with dots inside a section.
	Field  string
	Reason string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Wrong returns a [FieldError].
func Wrong(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// AtLeast returns a [FieldError] for a value below least, else nil.
func AtLeast[T cmp.Ordered](field string, value, least T) error {
	if value < least {
		return Wrong(field, "is %v, want at least %v", value, least)
	}
	return nil
}

// Within returns a [FieldError] for a value that is not from least to most, else nil.
func Within[T cmp.Ordered](field string, value, least, most T) error {
	if value < least || value > most {
		return Wrong(field, "is %v, want %v to %v", value, least, most)
	}
	return nil
}

// Inside returns err with every [FieldError] in it under section.
func Inside(section string, err error) error {
	return each(err, func(err error) error {
		var field *FieldError
		if !errors.As(err, &field) {
			return err
		}
		return &FieldError{section + "." + field.Field, field.Reason}
	})
}

// each applies f to the errors that err joins.
func each(err error, f func(error) error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, each(one, f))
		}
		return errors.Join(all...)
	}
	return f(err)
}

// File is a file of settings that has been read.
type File struct {
	path string
	root *yaml.Node
}

// maxFileBytes bounds a file.
const maxFileBytes = 1 << 20

// Read reads the file's settings into the struct that into points to. What the file omits is
// unchanged. ${NAME} in a text is replaced by the environment variable NAME, which must be set.
func Read(path string, into any) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFileBytes)
	}
	return Parse(path, data, into)
}

// Parse is [Read] of data; errors call it path.
func Parse(path string, data []byte, into any) (*File, error) {
	f := &File{path: path, root: &yaml.Node{}}
	if err := yaml.Unmarshal(data, f.root); err != nil {
		return nil, f.explain(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return nil, f.explain(err)
	}
	expanded, err := f.expand(f.root)
	if err != nil || !expanded {
		return f, err
	}
	if err := f.root.Decode(into); err != nil {
		return nil, f.explain(err)
	}
	return f, nil
}

// variable is an environment variable in a text.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces environment variables in texts, and reports whether there were any.
func (f *File) expand(n *yaml.Node) (found bool, err error) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Value = variable.ReplaceAllStringFunc(n.Value, func(text string) string {
			found = true
			name := text[2 : len(text)-1]
			value, set := os.LookupEnv(name)
			if !set {
				err = errors.Join(err, fmt.Errorf("%s:%d: the environment has no %s", f.path, n.Line, name))
			}
			return value
		})
		return found, err
	}
	for _, child := range n.Content {
		inside, failed := f.expand(child)
		found, err = found || inside, errors.Join(err, failed)
	}
	return found, err
}

// Messages of the YAML library, and their replacements.
var (
	atLine       = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	noSuchField  = regexp.MustCompile(`^field (\S+) not found in type .+$`)
	anotherType  = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.+)$")
	typesInWords = map[string]string{
		"int": "a whole number", "float64": "a number", "bool": "true or false", "string": "text",
		"time.Duration": "a time such as 250ms, 5s or 2m",
	}
)

func (f *File) explain(err error) error {
	messages := []string{err.Error()}
	var kinds *yaml.TypeError
	if errors.As(err, &kinds) {
		messages = kinds.Errors
	}
	var all []error
	for _, message := range messages {
		line := 0
		if parts := atLine.FindStringSubmatch(message); parts != nil {
			line, _ = strconv.Atoi(parts[1])
			message = parts[2]
		}
		if parts := noSuchField.FindStringSubmatch(message); parts != nil {
			message = fmt.Sprintf("there is no setting %q here", parts[1])
		} else if parts := anotherType.FindStringSubmatch(message); parts != nil {
			want, known := typesInWords[parts[3]]
			if !known {
				want = map[bool]string{
					true:  "a list",
					false: "a section of settings",
				}[strings.HasPrefix(parts[3], "[]")]
			}
			message = fmt.Sprintf("%q is not %s", parts[2], want)
		}
		all = append(all, fmt.Errorf("%s:%d: %s", f.path, line, message))
	}
	return errors.Join(all...)
}

// Locate returns err with the line of every [FieldError] in it. Other errors
// stay as they are.
func (f *File) Locate(err error) error {
	return each(err, func(err error) error {
		var field *FieldError
		if !errors.As(err, &field) {
			return err
		}
		// What is located is text: it is not put into another section.
		return fmt.Errorf("%s:%d: %s: %s", f.path, f.line(strings.Split(field.Field, ".")), field.Field, field.Reason)
	})
}

// line returns the line of a setting, or of the innermost section that it is
// missing in. A list's member is its number.
func (f *File) line(path []string) int {
	node := f.root
	if node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	line := max(node.Line, 1)
	for _, key := range path {
		switch node.Kind {
		case yaml.MappingNode:
			at := -1
			for i := 0; i < len(node.Content); i += 2 {
				if node.Content[i].Value == key {
					at = i
				}
			}
			if at < 0 {
				return line
			}
			line, node = node.Content[at].Line, node.Content[at+1]
		case yaml.SequenceNode:
			at, err := strconv.Atoi(key)
			if err != nil || at < 0 || at >= len(node.Content) {
				return line
			}
			node = node.Content[at]
			line = node.Line
		default:
			return line
		}
	}
	return line
}

// Set returns the paths of the settings to which the file gives a value that is not empty, in the file's order. A list
// is one setting.
func (f *File) Set() []string {
	var out []string
	var walk func(prefix string, node *yaml.Node)
	walk = func(prefix string, node *yaml.Node) {
		switch node.Kind {
		case yaml.DocumentNode:
			for _, child := range node.Content {
				walk(prefix, child)
			}
		case yaml.AliasNode:
			walk(prefix, node.Alias)
		case yaml.MappingNode:
			for i := 0; i+1 < len(node.Content); i += 2 {
				key, value := node.Content[i], node.Content[i+1]
				switch {
				case key.Tag == "!!merge" && value.Kind == yaml.SequenceNode:
					for _, merged := range value.Content {
						walk(prefix, merged)
					}
				case key.Tag == "!!merge":
					walk(prefix, value)
				default:
					walk(strings.TrimPrefix(prefix+"."+key.Value, "."), value)
				}
			}
		case yaml.SequenceNode:
			if len(node.Content) > 0 {
				out = append(out, prefix)
			}
		case yaml.ScalarNode:
			if node.Value != "" && node.Tag != "!!null" {
				out = append(out, prefix)
			}
		}
	}
	walk("", f.root)
	return out
}

// Keys returns the paths of all settings in a document, sorted; the members of
// lists are left out.
func Keys(data []byte) ([]string, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, err
	}
	var out []string
	var walk func(prefix string, node *yaml.Node)
	walk = func(prefix string, node *yaml.Node) {
		if node.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i < len(node.Content); i += 2 {
			path := prefix + node.Content[i].Value
			out = append(out, path)
			walk(path+".", node.Content[i+1])
		}
	}
	if len(root.Content) > 0 {
		walk("", root.Content[0])
	}
	slices.Sort(out)
	return out, nil
}
