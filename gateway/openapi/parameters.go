package openapi

import (
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
)

// maxQueryDepth bounds the nesting of query parameters.
const maxQueryDepth = 4

// query lists the query parameters of a message's fields, except those in the path and in the body.
// prefix and names are the path to the message, in proto names and in the names of query
// parameters.
func (b *builder) query(
	prefix, names string, message protoreflect.MessageDescriptor, inPath map[string]bool, body string,
	above []protoreflect.FullName,
) []any {
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
		case name == "": // its names refer to other fields
		case isLeftOut(value):
		case inPath[path], prefix == "" && string(field.Name()) == body:
		case isMessage && !field.IsList() && !field.IsMap():
			list = append(list,
				b.query(path+".", names+name+".", field.Message(), inPath, body, append(above, message.FullName()))...)
		case isMessage, field.IsMap() && value.Message() != nil && transcode.IsJSON(value.Message()): // sent in a body
		case field.IsMap():
			parameter["style"], parameter["explode"], parameter["schema"] = "deepObject", true, b.field(field)
			list = append(list, parameter)
		case value.Message() != nil && transcode.IsJSON(value.Message()):
			if field.IsList() { // each of its values is JSON, which OpenAPI cannot express
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

// isLeftOut reports whether parameters of a field's type are accepted and not listed: their only
// value carries no information, or generated clients send an empty text in place of an absent one.
func isLeftOut(field protoreflect.FieldDescriptor) bool {
	var name protoreflect.FullName
	switch {
	case field.Message() != nil:
		name = field.Message().FullName()
	case field.Enum() != nil:
		name = field.Enum().FullName()
	}
	switch name {
	case "google.protobuf.Empty", "google.protobuf.NullValue", "google.protobuf.Value", "google.protobuf.ListValue":
		return true
	}
	return false
}

// headers lists the headers that a method reads.
func headers(method *policy.Method, rule *annotations.HttpRule) []any {
	var list []any
	add := func(name, description string) {
		list = append(
			list,
			object{
				"name": name, "in": "header", "description": description,
				"schema": object{"type": "string", "minLength": 1},
			},
		)
	}
	if method.KeyField != 0 && method.Spec.StreamType == connect.StreamTypeUnary {
		field := method.Input.Descriptor().Fields().ByNumber(method.KeyField)
		add("Idempotency-Key", "The key of the call, as "+field.JSONName()+" has it: it takes effect once per key.")
	}
	if isTagged(method, rule) {
		add("If-None-Match", "Entity tags of answers that the client has.")
	}
	if rule.GetPattern() != nil && method.ResumeField != 0 {
		field := method.Input.Descriptor().Fields().ByNumber(method.ResumeField)
		add("Last-Event-Id", "The id of the last event that the client has, in place of "+string(field.Name())+".")
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
