package openapi

import (
	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ref refers to a message's schema and adds it if it is new.
func (b *builder) ref(message protoreflect.MessageDescriptor) object {
	if schema := wellKnown(message.FullName()); schema != nil {
		return schema
	}
	name := string(message.FullName())
	if _, known := b.schemas[name]; !known {
		schema := object{"type": "object", "additionalProperties": false}
		b.schemas[name] = schema // before its fields, which may refer to it
		properties := object{}
		fields := message.Fields()
		for i := range fields.Len() {
			properties[fields.Get(i).JSONName()] = b.field(fields.Get(i))
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
		schema := object{"type": "object", "additionalProperties": b.single(field.MapValue(), rules.GetMap().GetValues())}
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
		return object{"type": "string", "contentEncoding": "base64"}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return object{"type": []string{"number", "string"}, "format": field.Kind().String()}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{"type": []string{"string", "integer"}, "format": "int64"} // written as a string, read as either
	case protoreflect.EnumKind:
		return enumSchema(field.Enum())
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

// set adds a keyword if the rule is there.
func set[T any](schema object, keyword string, rule *T) {
	if rule != nil {
		schema[keyword] = *rule
	}
}

func enumSchema(enum protoreflect.EnumDescriptor) object {
	if enum.FullName() == "google.protobuf.NullValue" {
		return object{"type": "null"}
	}
	names := make([]string, enum.Values().Len())
	for i := range names {
		names[i] = string(enum.Values().Get(i).Name())
	}
	return object{"type": "string", "enum": names}
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
		return object{"type": "object"}
	case "google.protobuf.Value":
		return object{}
	case "google.protobuf.ListValue":
		return object{"type": "array"}
	case "google.protobuf.Empty":
		return object{"type": "object", "additionalProperties": false}
	case "google.protobuf.Any":
		return object{"type": "object", "properties": object{"@type": object{"type": "string"}}, "required": []string{"@type"}}
	case "google.protobuf.BoolValue":
		return object{"type": []string{"boolean", "null"}}
	case "google.protobuf.StringValue", "google.protobuf.BytesValue", "google.protobuf.Int64Value", "google.protobuf.UInt64Value":
		return object{"type": []string{"string", "null"}}
	case "google.protobuf.Int32Value", "google.protobuf.UInt32Value":
		return object{"type": []string{"integer", "null"}}
	case "google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return object{"type": []string{"number", "string", "null"}}
	}
	return nil
}

// errorSchema describes Connect's JSON error
// (https://connectrpc.com/docs/protocol#error-end-stream).
func errorSchema() object {
	return object{
		"type": "object", "required": []string{"code"},
		"properties": object{
			"code":    object{"type": "string"},
			"message": object{"type": "string"},
			"details": object{"type": "array", "items": object{
				"type":       "object",
				"properties": object{"type": object{"type": "string"}, "value": object{"type": "string"}, "debug": object{}},
			}},
		},
	}
}
