package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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

	"github.com/headgate/headgate/gateway"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// hall is a service with every kind of method, whose policies need no field of a message: the
// tenant comes from the credential. Talk sends before it receives, Count returns the number of
// messages of a stream, `Say` answers one message.
type hall struct {
	set     []byte
	methods map[string]protoreflect.MethodDescriptor
	// It runs before `Say` answers.
	say func(ctx context.Context) error
}

// streamKind is the stream type of each method of hall.
var streamKind = map[string]connect.StreamType{
	"Talk": connect.StreamTypeBidi, "Count": connect.StreamTypeClient, "Say": connect.StreamTypeUnary,
}

func newHall(t *testing.T) *hall {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
		Right:       "hall.use",
		TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:    "ticker",
		Timeout:     durationpb.New(20 * time.Second),
		TenantField: "tenant_id",
	})
	text := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name:   proto.String(name),
			Number: proto.Int32(number),
			Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	method := func(name string) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name:            proto.String(name),
			InputType:       proto.String(".test.Word"),
			OutputType:      proto.String(".test.Word"),
			Options:         options,
			ClientStreaming: proto.Bool(streamKind[name]&connect.StreamTypeClient != 0),
			ServerStreaming: proto.Bool(streamKind[name]&connect.StreamTypeServer != 0),
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/hall.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{
				Name:  proto.String("Word"),
				Field: []*descriptorpb.FieldDescriptorProto{text("tenant_id", 1), text("text", 2)},
			},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{
				Name:   proto.String("Hall"),
				Method: []*descriptorpb.MethodDescriptorProto{method("Talk"), method("Count"), method("Say")},
			},
		},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{methods: map[string]protoreflect.MethodDescriptor{}}
	for name := range streamKind {
		h.methods[name] = fd.Services().Get(0).Methods().ByName(protoreflect.Name(name))
	}
	if h.set, err = proto.Marshal(
		&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}},
	); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hall) spec(name string) connect.Spec {
	return connect.Spec{Procedure: "/test.Hall/" + name, StreamType: streamKind[name], Schema: h.methods[name]}
}

func (h *hall) word(fields ...string) *dynamicpb.Message {
	desc := h.methods["Say"].Input()
	word := dynamicpb.NewMessage(desc)
	for n, value := range fields {
		if value != "" {
			word.Set(desc.Fields().Get(n), protoreflect.ValueOfString(value))
		}
	}
	return word
}

func (h *hall) text(word *dynamicpb.Message) string {
	fields := h.methods["Say"].Input().Fields()
	return word.Get(fields.Get(0)).String() + " " + word.Get(fields.Get(1)).String()
}

func (h *hall) register(server *connect.Server) {
	handlers := map[string]func(context.Context, connect.ServerStream) error{
		"Talk": func(_ context.Context, stream connect.ServerStream) error {
			if err := stream.Send(h.word("", "welcome")); err != nil {
				return err
			}
			for {
				word := h.word()
				switch err := stream.Receive(word); {
				case errors.Is(err, io.EOF):
					return stream.Send(h.word("", "farewell"))
				case err != nil:
					return err
				}
				if err := stream.Send(word); err != nil {
					return err
				}
			}
		},
		"Count": func(_ context.Context, stream connect.ServerStream) error {
			for n := 0; ; n++ {
				switch err := stream.Receive(h.word()); {
				case errors.Is(err, io.EOF):
					return stream.Send(h.word("", fmt.Sprint(n)))
				case err != nil:
					return err
				}
			}
		},
		"Say": func(ctx context.Context, stream connect.ServerStream) error {
			word := h.word()
			if err := stream.Receive(word); err != nil {
				return err
			}
			if h.say != nil {
				if err := h.say(ctx); err != nil {
					return err
				}
			}
			return stream.Send(h.word("", "yes"))
		},
	}
	for name, handler := range handlers {
		server.Register(
			connect.Method{
				Spec: h.spec(name),
				Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
					return handler(ctx, stream)
				},
			},
		)
	}
}

// streaming are the clients for bidirectional streams: all over HTTP/2.
var streaming = map[string]func(*edge) *connect.Client{
	"connect": func(e *edge) *connect.Client { return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url)) },
	"connect+json": func(e *edge) *connect.Client {
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, connecthttp.WithProtoJSON()))
	},
	"grpcweb": func(e *edge) *connect.Client {
		return connect.NewClient(connecthttp.NewTransport(e.h2c, e.url, connecthttp.WithGRPCWeb()))
	},
	"grpc":        func(e *edge) *connect.Client { return e.client("grpc") },
	"native grpc": func(e *edge) *connect.Client { return e.client("native grpc") },
}

// everyStreaming runs a test for every streaming client and every transport of upstream calls.
func everyStreaming(
	t *testing.T, change func(*gateway.Config), test func(t *testing.T, e *edge, h *hall, client *connect.Client),
) {
	t.Helper()
	everyUpstream(t, func(t *testing.T, start starter) {
		for protocol, client := range streaming {
			t.Run(protocol, func(t *testing.T) {
				h := newHall(t)
				e := start(change, h.register, h.set)
				test(t, e, h, client(e))
			})
		}
	})
}

// begin opens a stream of a method of hall.
func (h *hall) begin(t *testing.T, e *edge, client *connect.Client, method string) connect.ClientStream {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", e.token(t, "acme", "hall.use"))
	stream, err := client.CallClientStream(ctx, h.spec(method))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	if err := stream.SendHeaders(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// receives reads a message.
func (h *hall) receives(t *testing.T, stream connect.ClientStream, want string) {
	t.Helper()
	word := h.word()
	if err := stream.Receive(word); err != nil || h.text(word) != want {
		t.Fatalf("%q, %v; want %q", h.text(word), err, want)
	}
}

func TestStream_NodeMaySendFirst(t *testing.T) {
	everyStreaming(t, nil, func(t *testing.T, e *edge, h *hall, client *connect.Client) {
		stream := h.begin(t, e, client, "Talk")
		h.receives(t, stream, " welcome")
		if err := stream.Send(h.word("", "hello")); err != nil {
			t.Fatal(err)
		}
		h.receives(t, stream, "acme hello") // the tenant is filled in
		_ = stream.Send(h.word("globex", "hello"))
		if err := stream.Receive(h.word()); connect.CodeOf(err) != connect.CodePermissionDenied ||
			!strings.Contains(err.Error(), "another tenant") {
			t.Errorf("message for another tenant: %v", err)
		}
	})
}

func TestStream_MayCloseWithoutMessage(t *testing.T) {
	everyStreaming(t, nil, func(t *testing.T, e *edge, h *hall, client *connect.Client) {
		talk := h.begin(t, e, client, "Talk")
		h.receives(t, talk, " welcome")
		if err := talk.CloseSend(); err != nil {
			t.Fatal(err)
		}
		h.receives(t, talk, " farewell")
		if err := talk.Receive(h.word()); !errors.Is(err, io.EOF) {
			t.Errorf("stream ended with %v", err)
		}
		count := h.begin(t, e, client, "Count")
		if err := count.CloseSend(); err != nil {
			t.Fatal(err)
		}
		h.receives(t, count, " 0")
		if err := count.Receive(h.word()); !errors.Is(err, io.EOF) {
			t.Errorf("stream ended with %v", err)
		}
		count = h.begin(t, e, client, "Count")
		for range 3 {
			if err := count.Send(h.word()); err != nil {
				t.Fatal(err)
			}
		}
		if err := count.CloseSend(); err != nil {
			t.Fatal(err)
		}
		h.receives(t, count, " 3")
	})
}

// The first message, and a further one, arrive later than the body of a unary request may.
func TestStream_LateMessageIsAccepted(t *testing.T) {
	t.Parallel()
	everyStreaming(
		t, func(c *gateway.Config) { c.Listen.BodyTimeout = 200 * time.Millisecond },
		func(t *testing.T, e *edge, h *hall, client *connect.Client) {
			later := func() { // a request that began now is cut off
				r := connectRaw(t, e.grpc)
				if err := r.open(1, e.token(t, "acme", "query.read")); err != nil {
					t.Fatal(err)
				}
				cutOff(t, r)
			}
			stream := h.begin(t, e, client, "Count")
			for range 2 {
				later()
				if err := stream.Send(h.word()); err != nil {
					t.Fatal(err)
				}
			}
			later()
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			h.receives(t, stream, " 2")
		},
	)
}

// A stream whose messages name the resource is closed without one; another sends its first message
// late.
func TestStream_PolicyFieldNeedsMessage(t *testing.T) {
	t.Parallel()
	for protocol, client := range streaming {
		t.Run(protocol, func(t *testing.T) {
			r := newRoom(t)
			e := startWith(t, func(c *gateway.Config) { c.Listen.BodyTimeout = 200 * time.Millisecond }, r.register,
				r.set)
			begin := func() connect.ClientStream {
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("Authorization", e.token(t, "acme", "room.talk:hall"))
				stream, err := client(e).CallClientStream(ctx,
					connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { stream.Close() })
				if err := stream.SendHeaders(); err != nil {
					t.Fatal(err)
				}
				return stream
			}
			closed, late := begin(), begin()
			if err := closed.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := closed.Receive(r.note()); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("no message: %v", err)
			}
			slow := connectRaw(t, e.grpc)
			if err := slow.open(1, e.token(t, "acme", "query.read")); err != nil {
				t.Fatal(err)
			}
			cutOff(t, slow)
			if err := late.Send(r.note("acme", "hall", "one")); err != nil {
				t.Fatal(err)
			}
			answer := r.note()
			if err := late.Receive(answer); err != nil || r.fields(answer) != "acme hall one" {
				t.Errorf("late first message: %q, %v", r.fields(answer), err)
			}
		})
	}
}

// The time to complete a message of a stream is bounded; at the main port it starts with the
// message.
func TestStream_IncompleteMessageEndsStream(t *testing.T) {
	h := newHall(t)
	e := startWith(t, func(c *gateway.Config) { c.Listen.BodyTimeout = 200 * time.Millisecond }, h.register, h.set)
	r := connectRaw(t, e.url)
	if err := r.begin(
		1, ":method", "POST", ":scheme", "http", ":authority", "edge", ":path", "/test.Hall/Count", "content-type",
		"application/grpc+proto", "te", "trailers", "authorization", e.token(t, "acme", "hall.use"),
	); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{{0, 0, 0, 0, 0}, {0, 0, 0, 0}} { // a message, and the beginning of another
		if err := r.framer.WriteData(1, false, part); err != nil {
			t.Fatal(err)
		}
	}
	cutOff(t, r)
}
