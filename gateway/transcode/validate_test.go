package transcode_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/gateway/transcode"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// oldFashioned returns a proto2 type with a group, a repeated group, texts that need not be
// UTF-8, a closed enum and a map; required also gives it a required field.
func oldFashioned(t testing.TB, required bool) protoreflect.MessageDescriptor {
	t.Helper()
	field := func(name string, number int32, kind fieldType, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{
			Name:   proto.String(name),
			Number: proto.Int32(number),
			Type:   kind.Enum(),
			Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		if typeName != "" || kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE {
			f.TypeName = proto.String(".headgate.old.Old" + typeName)
		}
		return f
	}
	repeated := func(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		return f
	}
	group := func(name string) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: []*descriptorpb.FieldDescriptorProto{
			field("text", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
			field("old", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ""),
		}}
	}
	message := &descriptorpb.DescriptorProto{
		Name: proto.String("Old"),
		Field: []*descriptorpb.FieldDescriptorProto{
			field("text", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
			field("one", 2, descriptorpb.FieldDescriptorProto_TYPE_GROUP, ".One"),
			repeated(field("many", 3, descriptorpb.FieldDescriptorProto_TYPE_GROUP, ".Many")),
			field("color", 4, descriptorpb.FieldDescriptorProto_TYPE_ENUM, ".Color"),
			repeated(field("colors", 5, descriptorpb.FieldDescriptorProto_TYPE_ENUM, ".Color")),
			repeated(field("olds", 6, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".OldsEntry")),
			repeated(field("numbers", 300, descriptorpb.FieldDescriptorProto_TYPE_SINT64, "")),
		},
		NestedType: []*descriptorpb.DescriptorProto{group("One"), group("Many"), {
			Name: proto.String("OldsEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
			Field: []*descriptorpb.FieldDescriptorProto{
				field("key", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
				field("value", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ""),
			},
		}},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name:  proto.String("Color"),
			Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String("RED"), Number: proto.Int32(1)}},
		}},
	}
	if required {
		f := field("must", 7, descriptorpb.FieldDescriptorProto_TYPE_BOOL, "")
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum()
		message.Field = append(message.Field, f)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:        proto.String("headgate/old.proto"),
		Package:     proto.String("headgate.old"),
		Syntax:      proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{message},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// judge decides with proto.Unmarshal whether a message of a type is valid.
type judge struct {
	program *transcode.Program
	fresh   func() proto.Message
}

// judges are the types whose messages the tests parse: generated ones, as in nodes, and types that
// exist as descriptors only.
func judges(t testing.TB) []judge {
	t.Helper()
	var list []judge
	compiler := transcode.NewCompiler(nil)
	for _, message := range []proto.Message{
		&structpb.Struct{}, &projectionv1.QueryRequest{}, &projectionv1.QueryResponse{}, &aggregatev1.SubmitRequest{},
		&descriptorpb.FileDescriptorProto{}, &descriptorpb.UninterpretedOption{}, &descriptorpb.MethodOptions{},
	} {
		list = append(
			list,
			judge{
				compiler.Compile(message.ProtoReflect().Descriptor()),
				func() proto.Message { return proto.Clone(message) },
			},
		)
	}
	for _, desc := range []protoreflect.MessageDescriptor{
		everything(t), oldFashioned(t, false), oldFashioned(t, true),
	} {
		list = append(list,
			judge{transcode.NewCompiler(nil).Compile(desc), func() proto.Message { return dynamicpb.NewMessage(desc) }})
	}
	return list
}

// check compares Validate with proto.Unmarshal.
func (j judge) check(t interface{ Fatalf(string, ...any) }, wire []byte) {
	err, panicked := func() (err error, panicked bool) {
		defer func() { panicked = recover() != nil }()
		return proto.Unmarshal(wire, j.fresh()), false
	}()
	if panicked {
		return // protobuf's reflection gives up on some map entries, which generated types read
	}
	if got := j.program.Validate(wire); (got == nil) != (err == nil) ||
		got != nil && !errors.Is(got, transcode.ErrWire) {
		t.Fatalf("%s: Validate: %v; proto.Unmarshal: %v\n%x", j.program.Descriptor().FullName(), got, err, wire)
	}
}

// nested returns depth nested messages, in the field with that number, which is at most 15.
func nested(number protowire.Number, depth int) []byte {
	var reversed []byte
	for range depth {
		length := protowire.AppendVarint(nil, uint64(len(reversed)))
		slices.Reverse(length)
		reversed = append(append(reversed, length...), byte(number<<3)|byte(protowire.BytesType))
	}
	slices.Reverse(reversed)
	return reversed
}

// malformed are wire bytes on which parsers differ.
var malformed = sync.OnceValue(func() [][]byte {
	tag := func(number protowire.Number, wireType protowire.Type, rest ...byte) []byte {
		return append(protowire.AppendVarint(nil, uint64(number)<<3|uint64(wireType)),
			rest...)
	}
	long := bytes.Repeat([]byte{0xff}, 10)
	list := [][]byte{
		nil, {0}, {0x08}, {0x80}, {0xff}, long, append(slices.Clone(long), 0),
		tag(0, protowire.VarintType, 1), tag(1<<29, protowire.VarintType, 1), tag(1<<29-1, protowire.VarintType, 1),
		tag(1<<29, protowire.BytesType, 0),
		tag(1<<31-1, protowire.BytesType, 0), protowire.AppendVarint(nil, 1<<34|2),
		tag(19000, protowire.VarintType, 1), tag(1, protowire.EndGroupType), tag(1, 6, 1), tag(1, 7, 1),
		tag(1, protowire.BytesType, 1, 0xff), tag(1, protowire.BytesType, 2, 0xc3, 0x28),
		tag(1, protowire.BytesType, 3, 0xed, 0xa0, 0x80), tag(1, protowire.BytesType, 5, 'a'),
		tag(1, protowire.VarintType, 0x80), tag(1, protowire.VarintType, long...),
		tag(1, protowire.VarintType, append(slices.Clone(long[:9]), 1)...),
		tag(1, protowire.VarintType, append(slices.Clone(long[:9]), 2)...), tag(1, protowire.Fixed32Type, 1, 2, 3),
		tag(1, protowire.Fixed64Type, 1),
		tag(2, protowire.BytesType, 1, 0x0a), tag(2, protowire.BytesType, 2, 0x80, 0x80),
		tag(6, protowire.BytesType, 3, 0x0a, 1, 0xff), tag(6, protowire.BytesType, 2, 0x0a, 0x05),
		tag(1, protowire.BytesType, 4, 0x0a, 2, 0xff, 0xfe), tag(1, protowire.BytesType, 5, 0x12, 3, 0x1a, 1, 0xff),
		tag(1, protowire.BytesType, 2, 0x00, 0x01),
		tag(2, protowire.StartGroupType), tag(2, protowire.StartGroupType, 0x14),
		tag(2, protowire.StartGroupType, 0x1c), tag(2, protowire.StartGroupType, 0x0a, 1, 0xff, 0x14),
		tag(3, protowire.StartGroupType, 0x1c, 0x1b, 0x1c), tag(9, protowire.StartGroupType, 0x4c),
		tag(9, protowire.StartGroupType, 0x54), tag(3, protowire.BytesType, 0),
		tag(5, protowire.BytesType, 2, 1, 0x80), tag(5, protowire.BytesType, 2, 1, 2),
		tag(300, protowire.BytesType, 3, 1, 2, 0xff), tag(300, protowire.VarintType, 5),
		tag(300, protowire.Fixed32Type, 1, 2, 3, 4),
		tag(7, protowire.VarintType, 1), tag(7, protowire.VarintType, 0x80, 0x80, 0x80),
		bytes.Repeat(tag(9, protowire.StartGroupType), 12_000),
	}
	deep := slices.Concat(bytes.Repeat(tag(9, protowire.StartGroupType), 10_001),
		bytes.Repeat(tag(9, protowire.EndGroupType), 10_001))
	list = append(list, deep, deep[1:len(deep)-1], deep[2:len(deep)-2])
	for _, depth := range []int{2, 9_999, 10_000, 10_001, 20_000} {
		for _, number := range []protowire.Number{1, 2, 3, 4, 6} {
			list = append(list, nested(number, depth))
		}
	}
	return list
})

func TestValidate_AcceptsWhatUnmarshalAccepts(t *testing.T) {
	for _, judge := range judges(t) {
		for _, wire := range malformed() {
			judge.check(t, wire)
		}
	}
}

// Valid messages are damaged.
func TestValidate_AcceptsWhatUnmarshalAcceptsOfDamagedMessages(t *testing.T) {
	all := judges(t)
	rapid.Check(t, func(t *rapid.T) {
		judge := rapid.SampledFrom(all).Draw(t, "type")
		message := dynamicpb.NewMessage(judge.program.Descriptor())
		if !strings.HasPrefix(string(message.Descriptor().FullName()), "google.protobuf.") ||
			message.Descriptor().Name() == "Struct" {
			fill(t, message, 0)
		}
		wire, err := proto.MarshalOptions{AllowPartial: true}.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 4).Draw(t, "damages") {
			at := rapid.IntRange(0, len(wire)).Draw(t, "at")
			switch rapid.IntRange(0, 3).Draw(t, "damage") {
			case 0:
				wire = wire[:at]
			case 1:
				wire = slices.Insert(wire, at, rapid.Byte().Draw(t, "byte"))
			case 2:
				wire = slices.Concat(wire[:at], rapid.SampledFrom(malformed()[:40]).Draw(t, "malformed"), wire[at:])
			default:
				if at < len(wire) {
					wire[at] = rapid.Byte().Draw(t, "byte")
				}
			}
		}
		judge.check(t, wire)
	})
}

func FuzzValidate(f *testing.F) {
	all := judges(f)
	for _, wire := range malformed() {
		if len(wire) < 4096 {
			f.Add(wire)
		}
	}
	program, wire, _ := page(f)
	if err := program.Validate(wire); err != nil {
		f.Fatal(err)
	}
	f.Add(wire[:len(wire)/50])
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, judge := range all {
			judge.check(t, wire)
		}
	})
}

func TestValidate_NamesTheField(t *testing.T) {
	program := transcode.NewCompiler(nil).Compile((&projectionv1.QueryRequest{}).ProtoReflect().Descriptor())
	err := program.Validate([]byte("\x0a\x01\xff"))
	var wire *transcode.WireError
	if !errors.As(err, &wire) || wire.Field != "tenantId" ||
		!strings.Contains(err.Error(), "QueryRequest.tenantId: the text is not valid UTF-8") {
		t.Fatalf("err = %v", err)
	}
}

func TestValidate_DoesNotAllocate(t *testing.T) {
	program, wire, _ := page(t)
	if n := testing.AllocsPerRun(100, func() {
		if err := program.Validate(wire); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v objects", n)
	}
}

func BenchmarkValidate(b *testing.B) {
	program, large, _ := page(b)
	small, err := proto.Marshal(&projectionv1.QueryRequest{TenantId: "acme", View: "wallets"})
	if err != nil {
		b.Fatal(err)
	}
	request := transcode.NewCompiler(nil).Compile((&projectionv1.QueryRequest{}).ProtoReflect().Descriptor())
	for _, bc := range []struct {
		name    string
		program *transcode.Program
		wire    []byte
	}{{"request", request, small}, {"page", program, large}} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(bc.wire)))
			b.ReportAllocs()
			for b.Loop() {
				if err := bc.program.Validate(bc.wire); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
