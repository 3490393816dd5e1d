package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
)

// The test draws types whose JSON names are other fields' proto names.
func TestQuery_ParameterNamesResolveLikeProtojson(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := &descriptorpb.DescriptorProto{Name: proto.String("Names")}
		for i, name := range []string{"a", "b", "c", "d_e"} {
			kind := rapid.SampledFrom([]descriptorpb.FieldDescriptorProto_Type{
				descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES,
			}).Draw(t, "kind")
			f := &descriptorpb.FieldDescriptorProto{
				Name:   proto.String(name),
				Number: proto.Int32(int32(i + 1)),
				Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				Type:   kind.Enum(),
			}
			if json := rapid.SampledFrom([]string{"", "a", "b", "c", "dE", "d_e", "f"}).Draw(t, "json"); json != "" {
				f.JsonName = proto.String(json)
			}
			message.Field = append(message.Field, f)
		}
		message.Field = append(message.Field, &descriptorpb.FieldDescriptorProto{
			Name:     proto.String("in"),
			Number:   proto.Int32(9),
			Label:    descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			Type:     descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
			TypeName: proto.String(".headgate.names.Names"),
		})
		file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
			Name:        proto.String("headgate/names.proto"),
			Package:     proto.String("headgate.names"),
			Syntax:      proto.String("proto2"),
			MessageType: []*descriptorpb.DescriptorProto{message},
		}, protoregistry.GlobalFiles)
		if err != nil {
			t.Skip(err)
		}
		desc := file.Messages().Get(0)
		method := &policy.Method{Input: transcode.NewCompiler(nil).Compile(desc)}
		for _, name := range []string{"a", "b", "c", "d_e", "dE", "f"} {
			for _, nested := range []bool{false, true} {
				path, text := name, fmt.Sprintf(`{%q:"AQID"}`, name)
				if nested {
					path, text = "in."+name, fmt.Sprintf(`{"in":%s}`, text)
				}
				want := dynamicpb.NewMessage(desc)
				wantErr := protojson.Unmarshal([]byte(text), want)
				req := httptest.NewRequest(http.MethodGet, "/?"+url.Values{path: {"AQID"}}.Encode(), nil)
				call := &stream{request: req, binding: &binding{method: method}, query: &Query{}}
				wire, _, err := call.appendQuery(nil)
				if reachable := wantErr == nil && named(want); !reachable && err != nil {
					continue
				} else if (err == nil) != (wantErr == nil) {
					t.Fatalf("%s: %v, want %v", path, err, wantErr)
				}
				got := dynamicpb.NewMessage(desc)
				if err := proto.Unmarshal(wire, got); err != nil || !proto.Equal(got, want) {
					t.Fatalf("%s sets %v, want %v (%v)", path, got, want, err)
				}
			}
		}
	})
}

// named reports whether the field that is set has a separate name.
func named(message *dynamicpb.Message) bool {
	all := true
	message.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		all = all && transcode.Name(f) != ""
		if f.Message() != nil {
			inner, ok := v.Message().Interface().(*dynamicpb.Message)
			all = all && ok && named(inner)
		}
		return true
	})
	return all
}
