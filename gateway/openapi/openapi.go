// Package openapi describes the edge for people and tools that speak REST: an
// OpenAPI 3.1 document made from the same descriptors as the method table, so
// that it says what is served and nothing else.
//
// Messages are described by ProtoJSON's mapping, with those rules of
// buf.validate that JSON Schema can say, and with the comments of the protos. The document
// uses no unions of types, which generators of clients do not handle.
//
// Sources: OpenAPI 3.1.0, JSON Schema 2020-12,
// https://protobuf.dev/programming-guides/json/.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// object is a JSON object of the document.
type object = map[string]any

// verbs are the HTTP methods that OpenAPI describes; paths of others are left out.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodPut: "put", http.MethodPost: "post", http.MethodDelete: "delete", http.MethodPatch: "patch",
	http.MethodOptions: "options", http.MethodHead: "head", http.MethodTrace: "trace",
}

// Document returns the document of a method table, as JSON.
func Document(title, version string, table *policy.Table) ([]byte, error) {
	b := &builder{schemas: object{}, comments: newComments()}
	paths := object{}
	for _, method := range table.Methods() {
		for _, rule := range method.Rules {
			verb, path := edge.Pattern(rule)
			if verb == "" {
				return nil, fmt.Errorf("openapi: %s: an HTTP rule without a path", method.Spec.Procedure)
			}
			if name, ok := verbs[verb]; ok {
				text, parameters := b.path(method.Spec.Schema.(protoreflect.MethodDescriptor).Input(), path)
				b.add(paths, text, name, b.operation(method, rule, text, parameters))
			}
		}
		// Every unary method is also Connect's JSON over POST.
		if method.Spec.StreamType == connect.StreamTypeUnary {
			b.add(paths, method.Spec.Procedure, "post", b.operation(method, &annotations.HttpRule{Body: "*"}, "", nil))
		}
	}
	b.schemas["connect.Error"] = errorSchema()
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": title, "version": version, "description": "Errors are JSON (connect.Error) with an HTTP status."},
		"servers": []any{object{"url": "/"}},
		"paths":   paths,
		"components": object{
			"schemas":         b.schemas,
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
		},
	})
}

// builder collects the schemas that operations refer to.
type builder struct {
	schemas  object
	comments *comments
}

func (b *builder) add(paths object, path, verb string, operation object) {
	item, ok := paths[path].(object)
	if !ok {
		item = object{}
		paths[path] = item
	}
	item[verb] = operation
}

// path writes a path of google.api.http as OpenAPI does, where a parameter has no slashes: a
// variable of several segments becomes a parameter for each of them that is not fixed.
func (b *builder) path(input protoreflect.MessageDescriptor, path string) (string, []any) {
	var out strings.Builder
	var parameters []any
	taken := map[string]bool{}
	parameter := func(name, description string, schema object) {
		for n, base := 2, name; taken[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		taken[name] = true
		out.WriteString("{" + name + "}")
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
	return out.String(), parameters
}

func (b *builder) operation(method *policy.Method, rule *annotations.HttpRule, path string, parameters []any) object {
	desc := method.Spec.Schema.(protoreflect.MethodDescriptor)
	input := desc.Input()
	suffix := "_rpc"
	if path != "" {
		verb, route := edge.Pattern(rule)
		suffix = "_" + strings.ToLower(verb) + strings.Map(wordOnly, path)
		if rule.GetBody() != "*" {
			parameters = append(parameters, b.query("", "", input, variablesOf(route), rule.GetBody(), nil)...)
		}
	}
	summary, description := b.comments.summary(desc)
	operation := object{
		"operationId": strings.ReplaceAll(string(desc.FullName()), ".", "_") + suffix,
		"tags":        []string{string(desc.Parent().FullName())},
		"summary":     summary,
		"responses": object{
			"200":     b.answer(method, rule),
			"default": object{"description": "Why there is no answer.", "content": content(object{"$ref": "#/components/schemas/connect.Error"})},
		},
		"x-headgate-right":   method.Right,
		"x-headgate-timeout": method.Timeout.String(),
		"security":           []any{},
	}
	if description != "" {
		operation["description"] = description
	}
	if len(parameters) > 0 {
		operation["parameters"] = parameters
	}
	if !method.Anonymous {
		operation["security"] = []any{object{"bearer": []string{}}}
	}
	if body := b.body(method, rule); body != nil {
		operation["requestBody"] = body
	}
	return operation
}

// body describes a request's body; nil: it has none.
func (b *builder) body(method *policy.Method, rule *annotations.HttpRule) object {
	if rule.GetBody() == "" {
		return nil
	}
	input := method.Input.Descriptor()
	schema, media := object(nil), "application/json"
	if field := find(input, rule.GetBody()); rule.GetBody() == "*" {
		schema = b.ref(input)
	} else if field != nil {
		schema = b.field(field)
		input = field.Message()
	}
	switch {
	case input != nil && input.FullName() == "google.api.HttpBody":
		return object{"content": object{"*/*": object{"schema": binary()}}}
	case method.Spec.StreamType&connect.StreamTypeClient != 0:
		return object{"description": "JSON values, one per line, each of the schema x-headgate-item.", "content": object{
			"application/x-ndjson": object{"schema": object{"type": "string", "format": "binary", "x-headgate-item": schema}},
		}}
	}
	return object{"content": object{media: object{"schema": schema}}}
}

// answer describes the answer of a call that succeeds.
func (b *builder) answer(method *policy.Method, rule *annotations.HttpRule) object {
	output := method.Output.Descriptor()
	var schema object
	if field := find(output, rule.GetResponseBody()); field != nil {
		schema, output = b.field(field), field.Message()
	} else {
		schema = b.ref(output)
	}
	isREST := rule.GetPattern() != nil
	switch {
	case isREST && output != nil && output.FullName() == "google.api.HttpBody":
		return object{"description": "The body that the service has made.", "content": object{"*/*": object{"schema": binary()}}}
	case method.Spec.StreamType&connect.StreamTypeServer != 0:
		item := object{"schema": object{"type": "string", "format": "binary", "x-headgate-item": schema}}
		return object{
			"description": "A stream of values of the schema x-headgate-item: JSON, one per line, with blank lines as keep-alives, or Server-Sent Events. " +
				"A stream that fails ends with {\"error\": …} (connect.Error), or the event \"error\" with it.",
			"content": object{"application/x-ndjson": item, "text/event-stream": item},
		}
	}
	return object{"description": "The answer.", "content": content(schema)}
}

func binary() object { return object{"type": "string", "format": "binary"} }

func wordOnly(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

func content(schema object) object { return object{"application/json": object{"schema": schema}} }

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

// maxQueryDepth bounds the nesting of query parameters.
const maxQueryDepth = 4

// query lists the parameters that a message's fields make, but for those in the path and in
// the body. prefix and names are the path to the message, in proto names and in the names of
// query parameters.
func (b *builder) query(prefix, names string, message protoreflect.MessageDescriptor, inPath map[string]bool, body string, above []protoreflect.FullName) []any {
	if len(above) == maxQueryDepth {
		return nil
	}
	var list []any
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		path, name := prefix+string(field.Name()), transcode.Name(field)
		value := field
		if field.IsMap() {
			value = field.MapValue()
		}
		isMessage := value.Message() != nil && !transcode.IsValue(value.Message())
		parameter := object{"name": names + name, "in": "query"}
		if text := b.comments.of(field); text != "" {
			parameter["description"] = text
		}
		switch {
		case name == "": // its names lead to other fields
		case inPath[path], prefix == "" && string(field.Name()) == body:
		case isMessage && !field.IsList() && !field.IsMap():
			list = append(list, b.query(path+".", names+name+".", field.Message(), inPath, body, append(above, message.FullName()))...)
		case isMessage, field.IsMap() && value.Message() != nil && transcode.IsJSON(value.Message()): // sent in a body
		case field.IsMap():
			parameter["style"], parameter["explode"], parameter["schema"] = "deepObject", true, b.field(field)
			list = append(list, parameter)
		case value.Message() != nil && transcode.IsJSON(value.Message()):
			if field.IsList() { // each of its values is JSON, which OpenAPI cannot say
				continue
			}
			parameter["content"] = content(b.field(field))
			list = append(list, parameter)
		default:
			parameter["schema"] = b.field(field)
			list = append(list, parameter)
		}
	}
	return list
}

func find(message protoreflect.MessageDescriptor, path string) protoreflect.FieldDescriptor {
	var field protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(path, ".") {
		if message == nil {
			return nil
		}
		if field = message.Fields().ByName(protoreflect.Name(part)); field == nil {
			return nil
		}
		message = field.Message()
	}
	return field
}

// Handler serves the document of a method table to every caller. It makes the document at the first
// request, since that takes ten megabytes for a moment, and most gateways are never asked. The
// caller of Handler guards it.
func Handler(title, version string, table *policy.Table) http.Handler {
	made := sync.OnceValues(func() ([]byte, error) { return Document(title, version, table) })
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		document, err := made()
		if err != nil { // not reached: the edge refuses such tables
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "private, max-age=60")
		_, _ = w.Write(document) // the client is gone if this fails
	})
}
