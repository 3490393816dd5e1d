package transcode_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

type fieldType = descriptorpb.FieldDescriptorProto_Type

var scalarTypes = map[string]fieldType{
	"double": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, "float": descriptorpb.FieldDescriptorProto_TYPE_FLOAT,
	"int32": descriptorpb.FieldDescriptorProto_TYPE_INT32, "int64": descriptorpb.FieldDescriptorProto_TYPE_INT64,
	"uint32": descriptorpb.FieldDescriptorProto_TYPE_UINT32, "uint64": descriptorpb.FieldDescriptorProto_TYPE_UINT64,
	"sint32": descriptorpb.FieldDescriptorProto_TYPE_SINT32, "sint64": descriptorpb.FieldDescriptorProto_TYPE_SINT64,
	"fixed32":  descriptorpb.FieldDescriptorProto_TYPE_FIXED32,
	"fixed64":  descriptorpb.FieldDescriptorProto_TYPE_FIXED64,
	"sfixed32": descriptorpb.FieldDescriptorProto_TYPE_SFIXED32,
	"sfixed64": descriptorpb.FieldDescriptorProto_TYPE_SFIXED64,
	"bool":     descriptorpb.FieldDescriptorProto_TYPE_BOOL, "string": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"bytes": descriptorpb.FieldDescriptorProto_TYPE_BYTES,
}

// scalarOrder makes the message equal in all runs.
var scalarOrder = []string{
	"double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64",
	"fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
}

var wellKnownTypes = []string{
	"Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Empty", "Any",
	"DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue",
	"BytesValue",
}

// everything returns the descriptor of a message with every kind of field in
// every position: plain, optional, repeated, unpacked, in a map, in a oneof.
func everything(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	message := &descriptorpb.DescriptorProto{
		Name:      proto.String("Everything"),
		OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("choice")}},
	}
	number := int32(0)
	var choices []*descriptorpb.FieldDescriptorProto // a oneof's fields stand together
	add := func(name string, configure func(*descriptorpb.FieldDescriptorProto)) {
		number++
		f := &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), Number: proto.Int32(number),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		configure(f)
		if f.OneofIndex != nil && f.GetOneofIndex() == 0 {
			choices = append(choices, f)
			return
		}
		message.Field = append(message.Field, f)
	}
	setType := func(f *descriptorpb.FieldDescriptorProto, kind fieldType, typeName string) {
		f.Type = kind.Enum()
		if typeName != "" {
			f.TypeName = proto.String(typeName)
		}
	}
	variants := func(name string, kind fieldType, typeName string, scalar bool) {
		add("one_"+name, func(f *descriptorpb.FieldDescriptorProto) { setType(f, kind, typeName) })
		add("many_"+name, func(f *descriptorpb.FieldDescriptorProto) {
			setType(f, kind, typeName)
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		})
		add("pick_"+name, func(f *descriptorpb.FieldDescriptorProto) {
			setType(f, kind, typeName)
			f.OneofIndex = proto.Int32(0)
		})
		if scalar && name != "string" && name != "bytes" {
			add("unpacked_"+name, func(f *descriptorpb.FieldDescriptorProto) {
				setType(f, kind, typeName)
				f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
				f.Options = &descriptorpb.FieldOptions{Packed: proto.Bool(false)}
			})
		}
		if scalar {
			add("maybe_"+name, func(f *descriptorpb.FieldDescriptorProto) {
				setType(f, kind, typeName)
				f.Proto3Optional = proto.Bool(true)
				f.OneofIndex = proto.Int32(int32(len(message.OneofDecl)))
				message.OneofDecl = append(message.OneofDecl,
					&descriptorpb.OneofDescriptorProto{Name: proto.String("_maybe_" + name)})
			})
		}
	}
	addMap := func(name string, key, value fieldType, typeName string) {
		entry := "Map" + pascal(name) + "Entry"
		val := &descriptorpb.FieldDescriptorProto{
			Name:   proto.String("value"),
			Number: proto.Int32(2),
			Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		setType(val, value, typeName)
		message.NestedType = append(message.NestedType, &descriptorpb.DescriptorProto{
			Name: proto.String(entry), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
			Field: []*descriptorpb.FieldDescriptorProto{
				{
					Name:   proto.String("key"),
					Number: proto.Int32(1),
					Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
					Type:   key.Enum(),
				}, val,
			},
		})
		add("map_"+name, func(f *descriptorpb.FieldDescriptorProto) {
			setType(f, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".headgate.test.Everything."+entry)
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		})
	}
	for _, name := range scalarOrder {
		variants(name, scalarTypes[name], "", true)
		if name != "double" && name != "float" && name != "bytes" {
			addMap("by_"+name, scalarTypes[name], descriptorpb.FieldDescriptorProto_TYPE_INT32, "")
		}
		addMap("to_"+name, descriptorpb.FieldDescriptorProto_TYPE_STRING, scalarTypes[name], "")
	}
	variants("color", descriptorpb.FieldDescriptorProto_TYPE_ENUM, ".headgate.test.Color", true)
	addMap("to_color", descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_ENUM,
		".headgate.test.Color")
	variants("null", descriptorpb.FieldDescriptorProto_TYPE_ENUM, ".google.protobuf.NullValue", false)
	variants("self", descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".headgate.test.Everything", false)
	addMap("to_self", descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE,
		".headgate.test.Everything")
	for _, name := range wellKnownTypes {
		variants(snake(name), descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".google.protobuf."+name, false)
		addMap("to_"+snake(name), descriptorpb.FieldDescriptorProto_TYPE_STRING,
			descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".google.protobuf."+name)
	}
	message.Field = append(message.Field, choices...)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("headgate/test/everything.proto"),
		Package: proto.String("headgate.test"),
		Syntax:  proto.String("proto3"),
		Dependency: []string{
			"google/protobuf/timestamp.proto", "google/protobuf/duration.proto", "google/protobuf/field_mask.proto",
			"google/protobuf/struct.proto",
			"google/protobuf/empty.proto", "google/protobuf/any.proto", "google/protobuf/wrappers.proto",
		},
		MessageType: []*descriptorpb.DescriptorProto{message},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name: proto.String("Color"), Options: &descriptorpb.EnumOptions{AllowAlias: proto.Bool(true)},
			Value: []*descriptorpb.EnumValueDescriptorProto{
				{Name: proto.String("COLOR_NONE"), Number: proto.Int32(0)},
				{Name: proto.String("COLOR_RED"), Number: proto.Int32(1)},
				{Name: proto.String("COLOR_ROUGE"), Number: proto.Int32(1)},
				{Name: proto.String("COLOR_DEEP"), Number: proto.Int32(-7)},
			},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// pascal converts by_int32 to ByInt32.
func pascal(s string) string {
	out, upper := "", true
	for _, c := range s {
		if c == '_' {
			upper = true
			continue
		}
		if upper && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		out, upper = out+string(c), false
	}
	return out
}

// snake converts ListValue to list_value.
func snake(s string) string {
	out := ""
	for i, c := range s {
		if c >= 'A' && c <= 'Z' {
			if i > 0 {
				out += "_"
			}
			c += 'a' - 'A'
		}
		out += string(c)
	}
	return out
}
