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

// schemaFormats are the values of `format` that are checked, and those of JSON Schema and OpenAPI that are not.
var schemaFormats = []string{
	"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "iri", "iri-reference", "json-pointer",
	"period",
	"regex", "relative-json-pointer", "semver", "time", "uri", "uri-reference", "uri-template", "uuid",
	"idn-email", "idn-hostname", "int32", "int64", "float", "double", "byte", "binary", "password",
}

// schemaBounds are pairs of keywords of which the first may not exceed the second.
var schemaBounds = [][2]string{
	{"minimum", "maximum"}, {"exclusiveMinimum", "maximum"}, {"minimum", "exclusiveMaximum"},
	{"exclusiveMinimum", "exclusiveMaximum"}, {"minLength", "maxLength"}, {"minItems", "maxItems"},
	{"minProperties", "maxProperties"}, {"minContains", "maxContains"},
}

// warnOfSchema warns of keywords and formats that JSON Schema does not know and thus ignores, of bounds that exclude
// every value, and of required members that the schema refuses.
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
	p.warnOfBounds(path, values)
	format := values["format"]
	if format != nil && format.ShortTag() == "!!str" && !slices.Contains(schemaFormats, format.Value) {
		p.warn(format, join(path, "format"), "JSON Schema ignores the format %q, which it does not know "+
			"(it knows %s): write a `pattern`", format.Value, list(strings.Join(schemaFormats[:19], ", ")))
	}
}

// warnOfBounds warns of lower bounds that exceed the upper bounds, so that no value is accepted.
func (p *parser) warnOfBounds(path string, values map[string]*yaml.Node) {
	for _, bounds := range schemaBounds {
		lower, upper := values[bounds[0]], values[bounds[1]]
		var least, most float64
		if lower == nil || upper == nil || lower.Decode(&least) != nil || upper.Decode(&most) != nil {
			continue
		}
		exclusive := strings.HasPrefix(bounds[0], "exclusive") || strings.HasPrefix(bounds[1], "exclusive")
		if least > most || exclusive && least == most {
			p.warn(lower, join(path, bounds[0]), "no value is accepted: %s is %s and %s is %s", bounds[0], lower.Value,
				bounds[1], upper.Value)
		}
	}
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
