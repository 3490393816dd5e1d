// Package openapi generates the OpenAPI 3.1 document of the REST interface, from the same
// descriptors as the method table, so that it describes exactly the served methods.
//
// Messages are described by the ProtoJSON mapping, with the rules of buf.validate that JSON Schema
// can express, and with the comments of the protos. The document has no unions of types, which
// client
// generators do not support.
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
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/policy"
)

// object is a JSON object of the document.
type object = map[string]any

// verbs are the HTTP methods that OpenAPI describes; paths with other methods are left out.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodPut: "put", http.MethodPost: "post", http.MethodDelete: "delete",
	http.MethodPatch:   "patch",
	http.MethodOptions: "options", http.MethodHead: "head", http.MethodTrace: "trace",
}

// Document returns the document of a method table, as JSON.
func Document(title, version string, table *policy.Table) ([]byte, error) {
	b := &builder{
		paths:    object{},
		shapes:   map[string][]string{},
		schemas:  object{},
		comments: newComments(),
	}
	for _, method := range table.Methods() {
		for i, rule := range method.Rules {
			verb, route := edge.Pattern(rule)
			if verb == "" {
				return nil, fmt.Errorf("openapi: %s: an HTTP rule without a path", method.Spec.Procedure)
			}
			if name, ok := verbs[verb]; ok {
				path, parameters := b.path(method.Input.Descriptor(), route)
				b.add(path, name, strings.Contains(route, "**"), b.operation(method, rule, suffixOf(i), parameters))
			}
		}
		// Every unary method is also served as Connect's JSON over POST.
		if method.Spec.StreamType == connect.StreamTypeUnary {
			b.add(method.Spec.Procedure, "post", false,
				b.operation(method, &annotations.HttpRule{Body: "*"}, "_rpc", nil))
		}
	}
	b.schemas["connect.Error"] = errorSchema()
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{
			"title": title, "version": version, "description": "Errors are JSON (connect.Error) with an HTTP status.",
		},
		"servers": []any{object{"url": "/"}},
		"paths":   b.paths,
		"components": object{
			"schemas":         b.schemas,
			"responses":       object{"Error": errorResponse()},
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
		},
	})
}

// builder collects the paths, and the schemas that operations reference.
type builder struct {
	paths    object
	shapes   map[string][]string // parameters of each path, by the path without their names
	schemas  object
	comments *comments
}

// add adds an operation. Templates that differ only in the number of segments of a variable are one
// path in OpenAPI: it describes the one without ** (open), which serves requests of that form.
func (b *builder) add(path, verb string, open bool, operation object) {
	item, ok := b.paths[path].(object)
	if !ok {
		item = object{}
		b.paths[path] = item
	}
	if _, taken := item[verb]; !taken || !open {
		item[verb] = operation
	}
}

// suffixOf returns a suffix that makes the operation ids of a method's further HTTP rules unique.
// The id of the first rule is the method's name, which does not change if rules are added.
func suffixOf(rule int) string {
	if rule == 0 {
		return ""
	}
	return fmt.Sprintf("_%d", rule+1)
}

func (b *builder) operation(method *policy.Method, rule *annotations.HttpRule, suffix string, parameters []any) object {
	desc := method.Spec.Schema.(protoreflect.MethodDescriptor)
	_, route := edge.Pattern(rule)
	if route != "" && rule.GetBody() != "*" {
		parameters = append(parameters, b.query("", "", desc.Input(), variablesOf(route), rule.GetBody(), nil)...)
	}
	parameters = append(parameters, headers(method, rule)...)
	summary, description := b.comments.summary(desc)
	operation := object{
		"operationId":        strings.ReplaceAll(string(desc.FullName()), ".", "_") + suffix,
		"tags":               []string{string(desc.Parent().FullName())},
		"summary":            summary,
		"responses":          b.responses(method, rule),
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

// responses describes the responses of a call. One response describes all errors, so that
// generators create one type for them.
func (b *builder) responses(method *policy.Method, rule *annotations.HttpRule) object {
	answer := b.answer(method, rule)
	responses := object{"200": answer, "default": object{"$ref": "#/components/responses/Error"}}
	if isTagged(method, rule) {
		tag := object{"description": "The entity tag of the answer.", "schema": object{"type": "string"}}
		answer["headers"] = object{"Etag": tag}
		responses["304"] = object{
			"description": "The client has the answer: If-None-Match has its entity tag.",
			"headers":     object{"Etag": tag},
		}
	}
	return responses
}

// isTagged reports whether the answer has an entity tag.
func isTagged(method *policy.Method, rule *annotations.HttpRule) bool {
	_, isGET := rule.GetPattern().(*annotations.HttpRule_Get)
	return isGET && method.ETag != nil
}

// body describes a request's body; nil: there is none.
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
	case rule.GetPattern() != nil && input != nil && input.FullName() == "google.api.HttpBody":
		return object{"content": object{"*/*": object{"schema": binary()}}}
	case method.Spec.StreamType&connect.StreamTypeClient != 0:
		return object{"description": "JSON values, one per line, each of the schema of the content.", "content": object{
			"application/x-ndjson": object{"schema": sequence(schema)},
		}}
	}
	return object{"content": object{media: object{"schema": schema}}}
}

// answer describes the answer of a successful call.
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
		return object{
			"description": "The body that the service has made.", "content": object{"*/*": object{"schema": binary()}},
		}
	case method.Spec.StreamType&connect.StreamTypeServer != 0:
		return object{
			"description": "A stream of values: JSON, one per line, with blank lines as keep-alives, or Server-Sent " +
				"Events with JSON as data (Accept: text/event-stream). " +
				"A stream that fails ends with {\"error\": …} (connect.Error), or the event \"error\" with it.",
			"content": object{
				"application/x-ndjson": object{"schema": sequence(schema)},
				"text/event-stream":    object{"schema": schema},
			},
		}
	}
	return object{"description": "The answer.", "content": content(schema)}
}

func binary() object { return object{"type": "string", "format": "binary"} }

// sequence describes a sequence of JSON values of a schema (JSON Schema Validation §8.5).
func sequence(item object) object {
	return object{"type": "string", "format": "binary", "contentMediaType": "application/json", "contentSchema": item}
}

func content(schema object) object { return object{"application/json": object{"schema": schema}} }

// Handler serves the document of a method table to every caller; the caller of Handler must guard
// it. It generates the document at the first request, because that takes ten megabytes temporarily,
// and most gateways never serve it.
func Handler(title, version string, table *policy.Table) http.Handler {
	made := sync.OnceValues(func() ([]byte, error) { return Document(title, version, table) })
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		document, err := made()
		if err != nil { // not reached: the edge rejects such tables
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "private, max-age=60")
		_, _ = w.Write(document) // it fails only if the client has disconnected
	})
}
