package openapi

import (
	"math"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ref references a message's schema, and adds it if it is new.
func (b *builder) ref(message protoreflect.MessageDescriptor) object {
	if schema := wellKnown(message.FullName()); schema != nil {
		return schema
	}
	name := string(message.FullName())
	if _, known := b.schemas[name]; !known {
		schema := object{"type": "object", "additionalProperties": false}
		b.schemas[name] = schema // before its fields, which may reference it
		if text := b.comments.of(message); text != "" {
			schema["description"] = text
		}
		properties := object{}
		fields := message.Fields()
		for i := range fields.Len() {
			property := b.field(fields.Get(i))
			if text := b.comments.of(fields.Get(i)); text != "" {
				property["description"] = text
			}
			properties[fields.Get(i).JSONName()] = property
		}
		schema["properties"] = properties
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// field describes a field, with its rules.
func (b *builder) field(field protoreflect.FieldDescriptor) object {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	switch {
	case field.IsMap():
		schema := object{
			"type": "object", "additionalProperties": b.single(field.MapValue(), rules.GetMap().GetValues()),
		}
		if r := rules.GetMap(); r != nil {
			set(schema, "maxProperties", r.MaxPairs)
		}
		return schema
	case field.IsList():
		schema := object{"type": "array", "items": b.single(field, rules.GetRepeated().GetItems())}
		if r := rules.GetRepeated(); r != nil {
			set(schema, "maxItems", r.MaxItems)
			set(schema, "minItems", r.MinItems)
		}
		return schema
	}
	return b.single(field, rules)
}

// single describes one value of a field.
func (b *builder) single(field protoreflect.FieldDescriptor, rules *validate.FieldRules) object {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.StringKind:
		schema := object{"type": "string"}
		if r := rules.GetString(); r != nil {
			set(schema, "pattern", r.Pattern)
			set(schema, "minLength", r.MinLen)
			set(schema, "maxLength", r.MaxLen)
		}
		return schema
	case protoreflect.BytesKind:
		return object{"type": "string", "format": "byte"}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return object{"type": "number", "format": field.Kind().String()}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return object{"type": "string", "format": "int64"} // a number is accepted too
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{"type": "string", "format": "uint64"}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return object{"type": "integer", "format": "int64", "minimum": 0, "maximum": math.MaxUint32}
	case protoreflect.EnumKind:
		return b.enum(field.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return b.ref(field.Message())
	default:
		schema := object{"type": "integer", "format": "int32"}
		if number := rules.GetInt32(); number != nil {
			if _, ok := number.GetGreaterThan().(*validate.Int32Rules_Gte); ok {
				schema["minimum"] = number.GetGte()
			}
			if _, ok := number.GetLessThan().(*validate.Int32Rules_Lte); ok {
				schema["maximum"] = number.GetLte()
			}
		}
		return schema
	}
}

// set adds a keyword if the rule is set.
func set[T any](schema object, keyword string, rule *T) {
	if rule != nil {
		schema[keyword] = *rule
	}
}

// enum references an enumeration's schema, and adds it if it is new.
func (b *builder) enum(enum protoreflect.EnumDescriptor) object {
	name := string(enum.FullName())
	if name == "google.protobuf.NullValue" {
		return object{"description": "null"}
	}
	if _, known := b.schemas[name]; !known {
		names := make([]string, enum.Values().Len())
		for i := range names {
			names[i] = string(enum.Values().Get(i).Name())
		}
		schema := object{"type": "string", "enum": names}
		if text := b.comments.of(enum); text != "" {
			schema["description"] = text
		}
		b.schemas[name] = schema
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// wellKnown describes the types whose JSON is special; nil for others.
func wellKnown(name protoreflect.FullName) object {
	switch name {
	case "google.protobuf.Timestamp":
		return object{"type": "string", "format": "date-time"}
	case "google.protobuf.Duration":
		return object{"type": "string", "pattern": `^-?[0-9]+(\.[0-9]{1,9})?s$`}
	case "google.protobuf.FieldMask":
		return object{"type": "string"}
	case "google.protobuf.Struct":
		return object{"type": "object", "additionalProperties": true}
	case "google.protobuf.Value":
		return object{"description": "Any JSON value."}
	case "google.protobuf.ListValue":
		return object{"type": "array", "items": object{}}
	case "google.protobuf.Empty":
		return object{"type": "object", "additionalProperties": false}
	case "google.protobuf.Any":
		return object{
			"type": "object",
			"properties": object{
				"@type": object{
					"type":        "string",
					"description": "The message's type, such as type.googleapis.com/google.protobuf.Duration.",
				},
			},
			"required": []string{"@type"}, "additionalProperties": true,
		}
	case "google.protobuf.BoolValue":
		return object{"type": "boolean"}
	case "google.protobuf.StringValue":
		return object{"type": "string"}
	case "google.protobuf.BytesValue":
		return object{"type": "string", "format": "byte"}
	case "google.protobuf.Int64Value":
		return object{"type": "string", "format": "int64"}
	case "google.protobuf.UInt64Value":
		return object{"type": "string", "format": "uint64"}
	case "google.protobuf.Int32Value":
		return object{"type": "integer", "format": "int32"}
	case "google.protobuf.UInt32Value":
		return object{"type": "integer", "format": "int64", "minimum": 0, "maximum": math.MaxUint32}
	case "google.protobuf.FloatValue":
		return object{"type": "number", "format": "float"}
	case "google.protobuf.DoubleValue":
		return object{"type": "number", "format": "double"}
	}
	return nil
}

// errorSchema describes Connect's JSON error
// (https://connectrpc.com/docs/protocol#error-end-stream).
func errorSchema() object {
	var codes []string
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		codes = append(codes, code.String())
	}
	return object{
		"type": "object", "required": []string{"code"}, "description": "Why a call failed.",
		"properties": object{
			"code":    object{"type": "string", "enum": codes},
			"message": object{"type": "string", "description": "What is wrong, and what to do."},
			"details": object{"type": "array", "items": object{
				"type": "object",
				"properties": object{
					"type": object{
						"type": "string", "description": "The message's type, such as google.rpc.RetryInfo.",
					},
					"value": object{
						"type": "string", "description": "The protobuf message, in base64 without padding.",
					},
					"debug": object{"description": "The message as JSON."},
				},
			}},
		},
	}
}

// errorResponse describes the answer of a call that fails.
func errorResponse() object {
	retry := object{
		"description": "Seconds after which the call may be sent again, with 429 and 503.",
		"schema":      object{"type": "integer"},
	}
	return object{
		"description": "Why there is no answer.",
		"headers":     object{"Retry-After": retry},
		"content":     content(object{"$ref": "#/components/schemas/connect.Error"}),
	}
}
