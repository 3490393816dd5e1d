package model

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Keywords of JSON Schema 2020-12, by what they contain.
var (
	schemaMaps  = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
	schemaLists = []string{"allOf", "anyOf", "oneOf", "prefixItems"}
	schemaOnes  = []string{
		"additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames",
		"unevaluatedProperties", "unevaluatedItems", "contentSchema",
	}
	schemaOthers = []string{
		"$schema", "$id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$comment", "type", "enum",
		"const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength",
		"pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
		"minProperties", "required", "dependentRequired", "dependencies", "title", "description", "default",
		"deprecated", "readOnly", "writeOnly", "example", "examples", "format", "contentEncoding", "contentMediaType",
	}
)

// warnOfSchema warns of keywords that JSON Schema does not know and thus ignores, and of required members that the
// schema refuses.
func (p *parser) warnOfSchema(n *yaml.Node, path string) {
	n = deref(n)
	if n.Kind != yaml.MappingNode || p.stored {
		return
	}
	values := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], deref(n.Content[i+1])
		values[key.Value] = value
		path := join(path, key.Value)
		switch {
		case slices.Contains(schemaMaps, key.Value) && value.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(value.Content); i += 2 {
				p.warnOfSchema(value.Content[i+1], join(path, value.Content[i].Value))
			}
		case slices.Contains(schemaLists, key.Value):
			for _, item := range value.Content {
				p.warnOfSchema(item, path)
			}
		case slices.Contains(schemaOnes, key.Value):
			p.warnOfSchema(value, path)
		case !slices.Contains(schemaOthers, key.Value) && !strings.HasPrefix(key.Value, "x-") &&
			!slices.Contains(schemaMaps, key.Value):
			p.warn(key, path, "JSON Schema ignores the keyword %q, which it does not know", key.Value)
		}
	}
	p.warnOfRequired(path, values)
}

// warnOfRequired warns of required members that a closed schema refuses.
func (p *parser) warnOfRequired(path string, values map[string]*yaml.Node) {
	closed, properties, required := values["additionalProperties"], values["properties"], values["required"]
	if closed == nil || closed.Value != "false" || properties == nil || required == nil ||
		values["patternProperties"] != nil {
		return
	}
	var names []string
	for i := 0; i < len(properties.Content); i += 2 {
		names = append(names, properties.Content[i].Value)
	}
	for _, member := range required.Content {
		if name := deref(member).Value; !slices.Contains(names, name) {
			p.warn(member, join(path, "required"), "the member %q is required, and the schema refuses it: it has %s",
				name, list(strings.Join(names, ", ")))
		}
	}
}
