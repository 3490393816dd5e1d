package transcode_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/gateway/transcode"
)

// drawNames draws a message type whose fields' JSON names and proto names are from one small set,
// so that most are the other name of another field. nil: protobuf rejects it.
func drawNames(t *rapid.T) protoreflect.MessageDescriptor {
	proto3 := rapid.Bool().Draw(t, "proto3")
	protoNames := rapid.Permutation([]string{"a", "b", "c", "d", "a_b", "c_d"}).Draw(t, "names")
	message := &descriptorpb.DescriptorProto{Name: proto.String("Names")}
	for i := range rapid.IntRange(2, len(protoNames)).Draw(t, "fields") {
		f := &descriptorpb.FieldDescriptorProto{
			Name: proto.String(protoNames[i]),
			Number: proto.Int32(
				int32(rapid.SampledFrom([]int{i + 1, 200 + i}).Draw(t, "number")),
			),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			Type:  descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(),
		}
		if name := rapid.SampledFrom(
			[]string{"", "a", "b", "c", "d", "aB", "cD", "a_b", "c_d", "e"},
		).Draw(t, "json"); name != "" {
			f.JsonName = proto.String(name)
		}
		if rapid.IntRange(0, 3).Draw(t, "self") == 0 {
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(
				".headgate.names.Names",
			)
		}
		message.Field = append(message.Field, f)
	}
	syntax := "proto2"
	if proto3 {
		syntax = "proto3"
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:        proto.String("headgate/names.proto"),
		Package:     proto.String("headgate.names"),
		Syntax:      proto.String(syntax),
		MessageType: []*descriptorpb.DescriptorProto{message},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return nil
	}
	return file.Messages().Get(0)
}

func TestAppendWire_MemberNamesResolveLikeProtojson(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desc := drawNames(t)
		if desc == nil {
			t.Skip("no such type")
		}
		program := transcode.NewCompiler(nil).Compile(desc)
		for _, name := range []string{"a", "b", "c", "d", "e", "aB", "cD", "a_b", "c_d"} {
			checkToWire(t, program, fmt.Appendf(nil, `{%q:7}`, name))
			checkToWire(t, program, fmt.Appendf(nil, `{%q:{"a":1,"b":2}}`, name))
			checkToWire(t, program, fmt.Appendf(nil, `{%q:1,"a":2}`, name))
		}
		message := dynamicpb.NewMessage(desc)
		written := map[string]bool{}
		for i := range desc.Fields().Len() {
			written[desc.Fields().Get(i).JSONName()] = true
			if f := desc.Fields().Get(i); f.Message() == nil {
				message.Set(f, protoreflect.ValueOfInt32(int32(i+1)))
			}
		}
		wire, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if len(written) == desc.Fields().Len() { // else which of two members counts is the reader's choice
			checkToJSON(t, program, wire)
		}
	})
}

func TestName_ResolvesToItsField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desc := drawNames(t)
		if desc == nil {
			t.Skip("no such type")
		}
		for i := range desc.Fields().Len() {
			field := desc.Fields().Get(i)
			name := transcode.Name(field)
			if name == "" || field.Message() != nil {
				continue
			}
			message := dynamicpb.NewMessage(desc)
			if err := protojson.Unmarshal(fmt.Appendf(nil, `{%q:5}`, name), message); err != nil ||
				!message.Has(field) {
				t.Fatalf("%s has the name %q, protojson disagrees: %v, %v", field.FullName(), name, message, err)
			}
		}
	})
}
