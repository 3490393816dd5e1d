package openapi

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// path returns a google.api.http path in OpenAPI's form, with its parameters. Paths that differ
// only in the names of their parameters are one path in OpenAPI, with the names of the first one.
func (b *builder) path(input protoreflect.MessageDescriptor, route string) (string, []any) {
	parts, parameters := b.parts(input, route)
	shape := strings.Join(parts, "{}")
	names, known := b.shapes[shape]
	if !known {
		for _, p := range parameters {
			names = append(names, p["name"].(string))
		}
		b.shapes[shape] = names
	}
	out, list := parts[0], make([]any, len(parameters))
	for i, p := range parameters {
		p["name"] = names[i]
		out += "{" + names[i] + "}" + parts[i+1]
		list[i] = p
	}
	return out, list
}

// parts returns a path's parameters, and the texts before, between and after them. Parameters in
// OpenAPI have no slashes: a variable of several segments becomes a parameter for each segment that
// is not fixed.
func (b *builder) parts(input protoreflect.MessageDescriptor, path string) (parts []string, parameters []object) {
	var out strings.Builder
	taken := map[string]bool{}
	parameter := func(name, description string, schema object) {
		for n, base := 2, name; taken[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		taken[name] = true
		parts = append(parts, out.String())
		out.Reset()
		p := object{"name": name, "in": "path", "required": true, "schema": schema}
		if description != "" {
			p["description"] = description
		}
		parameters = append(parameters, p)
	}
	before := "segment"
	pattern := func(field, text string) {
		for i, segment := range strings.Split(text, "/") {
			if i > 0 {
				out.WriteByte('/')
			}
			switch {
			case segment == "*" && field == "":
				parameter(before, "Any text.", object{"type": "string", "minLength": 1})
			case segment == "*":
				parameter(before, "The part of "+field+" after "+before+".", object{"type": "string", "minLength": 1})
			case segment == "**":
				name := field
				if name == "" {
					name = "rest"
				}
				parameter(name, "The rest of the path: its slashes are not escaped.", object{"type": "string"})
			default:
				if segment != "" {
					before = segment
				}
				out.WriteString(segment)
			}
		}
	}
	for rest := path; rest != ""; {
		start := strings.IndexByte(rest, '{')
		if start < 0 {
			fixed, verb, isVerb := strings.Cut(rest, ":")
			pattern("", fixed)
			if isVerb {
				out.WriteString(":" + verb)
			}
			break
		}
		pattern("", rest[:start])
		variable, after, _ := strings.Cut(rest[start+1:], "}")
		rest = after
		field, text, given := strings.Cut(variable, "=")
		if given && text != "*" {
			pattern(field, text)
			continue
		}
		schema, description := object{"type": "string", "minLength": 1}, ""
		if f := find(input, field); f != nil {
			schema, description = b.field(f), b.comments.of(f)
		}
		parameter(field, description, schema)
	}
	return append(parts, out.String()), parameters
}

// variablesOf returns the fields in a path of google.api.http.
func variablesOf(path string) map[string]bool {
	out := map[string]bool{}
	for rest := path; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return out
		}
		variable, after, _ := strings.Cut(after, "}")
		field, _, _ := strings.Cut(variable, "=")
		out[field], rest = true, after
	}
}
