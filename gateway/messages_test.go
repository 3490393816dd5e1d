package gateway_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// room is a service that echoes its requests, which the gateway knows from a descriptor set only;
// its method streams in both directions.
type room struct {
	set  []byte
	desc protoreflect.MethodDescriptor

	mu       sync.Mutex
	received []string
}

func newRoom(t *testing.T) *room {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
		Right:         "room.talk",
		TenantScope:   policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:      "ticker",
		Timeout:       durationpb.New(20 * time.Second),
		TenantField:   "tenant_id",
		ResourceField: "name",
	})
	text := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name:   proto.String(name),
			Number: proto.Int32(number),
			Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/room.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{
				Name:  proto.String("Note"),
				Field: []*descriptorpb.FieldDescriptorProto{text("tenant_id", 1), text("name", 2), text("text", 3)},
			},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{Name: proto.String("Room"), Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Talk"), InputType: proto.String(".test.Note"),
				OutputType:      proto.String(".test.Note"),
				ClientStreaming: proto.Bool(true), ServerStreaming: proto.Bool(true), Options: options,
			}}},
		},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{desc: fd.Services().Get(0).Methods().Get(0)}
	if r.set, err = proto.Marshal(
		&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}},
	); err != nil {
		t.Fatal(err)
	}
	return r
}

// note returns a message with its three fields.
func (r *room) note(fields ...string) *dynamicpb.Message {
	note := dynamicpb.NewMessage(r.desc.Input())
	for n, value := range fields {
		if value != "" {
			note.Set(r.desc.Input().Fields().Get(n), protoreflect.ValueOfString(value))
		}
	}
	return note
}

// fields returns a message's three fields.
func (r *room) fields(note *dynamicpb.Message) string {
	var values []string
	for n := range r.desc.Input().Fields().Len() {
		values = append(values, note.Get(r.desc.Input().Fields().Get(n)).String())
	}
	return strings.Join(values, " ")
}

func (r *room) register(server *connect.Server) {
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc},
		Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			for {
				note := dynamicpb.NewMessage(r.desc.Input())
				if err := stream.Receive(note); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				r.mu.Lock()
				r.received = append(r.received, r.fields(note))
				r.mu.Unlock()
				if err := stream.Send(note); err != nil {
					return err
				}
			}
		},
	})
}

func TestStream_EveryMessageIsAuthorized(t *testing.T) {
	t.Parallel()
	everyUpstream(t, everyMessageOfAStreamIsBoundAndAuthorized)
}

func everyMessageOfAStreamIsBoundAndAuthorized(t *testing.T, start starter) {
	clients := map[string]func(*edge) *connect.Client{ // concurrent use of both sides takes HTTP/2
		"connect": func(e *edge) *connect.Client {
			return connect.NewClient(
				connecthttp.NewTransport(e.h2c, e.url),
			)
		},
		"grpc":        func(e *edge) *connect.Client { return e.client("grpc") },
		"native grpc": func(e *edge) *connect.Client { return e.client("native grpc") },
	}
	for protocol, client := range clients {
		for name, test := range map[string]struct {
			last    []string
			code    connect.Code
			message string
		}{
			"allowed": {[]string{"acme", "hall", "hello"}, 0, ""},
			"foreign tenant": {
				[]string{"globex", "hall", "hello"}, connect.CodePermissionDenied, "another tenant",
			},
			"foreign resource": {
				[]string{"", "attic", "hello"}, connect.CodePermissionDenied, `"room.talk:attic"`,
			},
		} {
			t.Run(protocol+", a message "+name, func(t *testing.T) {
				r := newRoom(t)
				e := start(nil, r.register, r.set)
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("Authorization", e.token(t, "acme", "room.talk:hall", "room.talk:yard"))
				stream, err := client(e).CallClientStream(ctx,
					connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				want := []string{"acme hall one", "acme yard two"}
				for _, fields := range [][]string{{"acme", "hall", "one"}, {"", "yard", "two"}} {
					if err := stream.Send(r.note(fields...)); err != nil {
						t.Fatal(err)
					}
					answer := dynamicpb.NewMessage(r.desc.Output())
					if err := stream.Receive(answer); err != nil ||
						r.fields(answer) != "acme "+strings.Join(fields[1:], " ") {
						t.Fatalf("%q, %v", r.fields(answer), err)
					}
				}
				_ = stream.Send(r.note(test.last...)) // the answer has the outcome
				answer := dynamicpb.NewMessage(r.desc.Output())
				err = stream.Receive(answer)
				if test.code == 0 {
					want = append(want, strings.Join(test.last, " "))
					if err != nil {
						t.Errorf("rejected: %v", err)
					}
				} else if connect.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) {
					t.Errorf("%v, want %v with %q", err, test.code, test.message)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if got := strings.Join(r.received, ", "); got != strings.Join(want, ", ") {
					t.Errorf("the node received %q, want %q", got, want)
				}
			})
		}
	}
}
