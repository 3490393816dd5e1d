// Package openapi describes the edge for people and tools that speak REST: an
// OpenAPI 3.1 document made from the same descriptors as the method table, so
// that it says what is served and nothing else.
//
// Messages are described by ProtoJSON's mapping, with those rules of
// buf.validate that JSON Schema can say.
//
// Sources: OpenAPI 3.1.0, JSON Schema 2020-12,
// https://protobuf.dev/programming-guides/json/.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// object is a JSON object of the document.
type object = map[string]any

// Document returns the document of a method table, as JSON.
func Document(title, version string, table *policy.Table) ([]byte, error) {
	b := &builder{schemas: object{}}
	paths := object{}
	for _, method := range table.Methods() {
		for _, rule := range method.Rules {
			verb, path := pattern(rule)
			if verb == "" {
				return nil, fmt.Errorf("openapi: %s: an HTTP rule without a path", method.Spec.Procedure)
			}
			b.add(paths, template(path), verb, b.operation(method, rule, path))
		}
		// Every unary method is also Connect's JSON over POST.
		if method.Spec.StreamType == 0 {
			b.add(paths, method.Spec.Procedure, "post", b.operation(method, &annotations.HttpRule{Body: "*"}, ""))
		}
	}
	b.schemas["connect.Error"] = errorSchema()
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": title, "version": version},
		"paths":   paths,
		"components": object{
			"schemas":         b.schemas,
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
		},
	})
}

// builder collects the schemas that operations refer to.
type builder struct{ schemas object }

func (b *builder) add(paths object, path, verb string, operation object) {
	item, ok := paths[path].(object)
	if !ok {
		item = object{}
		paths[path] = item
	}
	item[verb] = operation
}

func pattern(rule *annotations.HttpRule) (verb, path string) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "get", p.Get
	case *annotations.HttpRule_Put:
		return "put", p.Put
	case *annotations.HttpRule_Post:
		return "post", p.Post
	case *annotations.HttpRule_Delete:
		return "delete", p.Delete
	case *annotations.HttpRule_Patch:
		return "patch", p.Patch
	case *annotations.HttpRule_Custom:
		return strings.ToLower(p.Custom.GetKind()), p.Custom.GetPath()
	}
	return "", ""
}

// variables finds the fields in a path of google.api.http.
var variables = regexp.MustCompile(`\{([^}=]+)(=[^}]*)?\}`)

// template writes a path as OpenAPI does: the pattern of a variable goes.
func template(path string) string { return variables.ReplaceAllString(path, "{$1}") }

func (b *builder) operation(method *policy.Method, rule *annotations.HttpRule, path string) object {
	desc := method.Spec.Schema.(protoreflect.MethodDescriptor)
	input := desc.Input()
	inPath := map[string]bool{}
	var parameters []any
	for _, match := range variables.FindAllStringSubmatch(path, -1) {
		inPath[match[1]] = true
		schema := object{"type": "string"}
		if field := find(input, match[1]); field != nil {
			schema = b.field(field)
		}
		parameters = append(parameters, object{"name": match[1], "in": "path", "required": true, "schema": schema})
	}
	if rule.GetBody() != "*" {
		parameters = append(parameters, b.query("", "", input, inPath, rule.GetBody(), nil)...)
	}
	suffix := ""
	if path == "" {
		suffix = "_rpc"
	} else if verb, _ := pattern(rule); verb != "" {
		suffix = "_" + verb + strings.Map(wordOnly, template(path))
	}
	answer := b.ref(desc.Output())
	if field := find(desc.Output(), rule.GetResponseBody()); field != nil {
		answer = b.field(field)
	}
	operation := object{
		"operationId": strings.ReplaceAll(string(desc.FullName()), ".", "_") + suffix,
		"tags":        []string{string(desc.Parent().FullName())},
		"summary":     string(desc.Name()),
		"responses": object{
			"200":     object{"description": "The answer.", "content": content(answer)},
			"default": object{"description": "Why there is no answer.", "content": content(object{"$ref": "#/components/schemas/connect.Error"})},
		},
		"x-headgate-right":   method.Right,
		"x-headgate-timeout": method.Timeout.String(),
	}
	if len(parameters) > 0 {
		operation["parameters"] = parameters
	}
	if !method.Anonymous {
		operation["security"] = []any{object{"bearer": []string{}}}
	}
	switch body := rule.GetBody(); body {
	case "":
	case "*":
		operation["requestBody"] = object{"required": true, "content": content(b.ref(input))}
	default:
		if field := find(input, body); field != nil {
			operation["requestBody"] = object{"required": true, "content": content(b.field(field))}
		}
	}
	return operation
}

func wordOnly(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}

func content(schema object) object { return object{"application/json": object{"schema": schema}} }

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
		switch {
		case name == "": // its names lead to other fields
		case inPath[path], prefix == "" && string(field.Name()) == body, field.IsMap():
		case field.Message() != nil && wellKnown(field.Message().FullName()) == nil:
			if !field.IsList() {
				list = append(list, b.query(path+".", names+name+".", field.Message(), inPath, body, append(above, message.FullName()))...)
			}
		default:
			list = append(list, object{"name": names + name, "in": "query", "schema": b.field(field)})
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

// Handler serves the document to every caller. The caller of Handler guards it.
func Handler(document []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "private, max-age=60")
		_, _ = w.Write(document) // the client is gone if this fails
	})
}
