package transcode_test

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/typepb"

	"github.com/headgate/headgate/gateway/transcode"
)

// A program is compiled once per message type; then it turns JSON into wire bytes and back.
func Example() {
	program := transcode.NewCompiler(protoregistry.GlobalTypes).Compile((&typepb.Field{}).ProtoReflect().Descriptor())
	wire, err := program.AppendWire(nil, []byte(`{"name": "price", "number": 3, "kind": "TYPE_DOUBLE"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var field typepb.Field
	fmt.Println(proto.Unmarshal(wire, &field), field.GetNumber())
	text, err := program.AppendJSON(nil, wire)
	fmt.Println(string(text), err)
	_, err = program.AppendWire(nil, []byte(`{"nome": "price"}`))
	fmt.Println(err != nil)
	// Output:
	// <nil> 3
	// {"name":"price","number":3,"kind":"TYPE_DOUBLE"} <nil>
	// true
}

// Well-known types have the forms of ProtoJSON.
func ExampleProgram_AppendJSON() {
	wire, err := proto.Marshal(&fieldmaskpb.FieldMask{Paths: []string{"user.display_name", "photo"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	program := transcode.NewCompiler(protoregistry.GlobalTypes).Compile(
		(&fieldmaskpb.FieldMask{}).ProtoReflect().Descriptor(),
	)
	text, err := program.AppendJSON(nil, wire)
	fmt.Println(string(text), err)
	// Output: "user.displayName,photo" <nil>
}
