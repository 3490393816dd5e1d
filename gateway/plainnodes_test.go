package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/fanout"
)

// plain is the service of nodes that are only Connect servers: without health service, reflection
// and transport contract. The gateway knows a method that they lack (Missing), as when nodes of two
// versions serve.
type plain struct {
	desc     protoreflect.ServiceDescriptor
	set, old []byte // descriptor sets: the gateway's, and the nodes'
}

func newPlain(t *testing.T) *plain {
	t.Helper()
	method := func(name string, client, server bool) *descriptorpb.MethodDescriptorProto {
		options := &descriptorpb.MethodOptions{}
		proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
			Right:       "plain.call",
			TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
			Upstream:    "plain",
			Timeout:     durationpb.New(20 * time.Second),
		})
		return &descriptorpb.MethodDescriptorProto{
			Name:            proto.String(name),
			InputType:       proto.String(".test.Note"),
			OutputType:      proto.String(".test.Note"),
			ClientStreaming: proto.Bool(client),
			ServerStreaming: proto.Bool(server),
			Options:         options,
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/plain.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Note"), Field: []*descriptorpb.FieldDescriptorProto{
				{
					Name:   proto.String("text"),
					Number: proto.Int32(1),
					Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
					Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
			}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{Name: proto.String("Plain"), Method: []*descriptorpb.MethodDescriptorProto{
				method("Echo", false, false), method("Count", false, true), method("Join", true, false),
				method("Talk", true, true), method("Fail", false, false),
			}},
		},
	}
	marshal := func() []byte {
		set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	p := &plain{old: marshal()}
	file.Service[0].Method = append(file.Service[0].Method, method("Missing", false, false))
	p.set = marshal()
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	p.desc = fd.Services().Get(0)
	return p
}

func (p *plain) method(name string, kind connect.StreamType) connect.Spec {
	return connect.Spec{
		Procedure:  "/test.Plain/" + name,
		StreamType: kind,
		Schema:     p.desc.Methods().ByName(protoreflect.Name(name)),
	}
}

// note is a message with a text, and text is that of one.
func (p *plain) note(text string) *dynamicpb.Message {
	message := dynamicpb.NewMessage(p.desc.Methods().Get(0).Input())
	message.Set(message.Descriptor().Fields().Get(0), protoreflect.ValueOfString(text))
	return message
}

func (p *plain) text(message *dynamicpb.Message) string {
	return message.Get(message.Descriptor().Fields().Get(0)).String()
}

// connectGo serves it with connect-go, on a separate [http.ServeMux]. It returns the address.
func (p *plain) connectGo(t *testing.T) string {
	t.Helper()
	server := connect.NewServer()
	handle := func(name string, kind connect.StreamType, handler func(stream connect.ServerStream) error) {
		server.Register(
			connect.Method{
				Spec: p.method(name, kind),
				Handler: func(
					_ context.Context, _ connect.Spec, stream connect.ServerStream,
				) error {
					return handler(stream)
				},
			},
		)
	}
	each := func(stream connect.ServerStream, do func(text string) error) error {
		for {
			message := p.note("")
			switch err := stream.Receive(message); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			if err := do(p.text(message)); err != nil {
				return err
			}
		}
	}
	say := func(stream connect.ServerStream) func(text string) error {
		return func(text string) error { return stream.Send(p.note(text)) }
	}
	handle("Echo", connect.StreamTypeUnary,
		func(stream connect.ServerStream) error { return each(stream, say(stream)) })
	handle("Talk", connect.StreamTypeBidi, func(stream connect.ServerStream) error { return each(stream, say(stream)) })
	handle("Count", connect.StreamTypeServer, func(stream connect.ServerStream) error {
		return each(stream, func(text string) error {
			for part := range strings.SplitSeq(text, " ") {
				if err := stream.Send(p.note(part)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	handle("Join", connect.StreamTypeClient, func(stream connect.ServerStream) error {
		var parts []string
		if err := each(stream, func(text string) error { parts = append(parts, text); return nil }); err != nil {
			return err
		}
		return stream.Send(p.note(strings.Join(parts, " ")))
	})
	handle("Fail", connect.StreamTypeUnary, func(stream connect.ServerStream) error {
		return each(stream, func(text string) error {
			value, err := proto.Marshal(p.note(text))
			if err != nil {
				return err
			}
			return connect.NewError(connect.CodeNotFound,
				"no such note").WithDetail(&connect.ErrorDetail{Type: "test.Note", Value: value})
		})
	})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	node := &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- node.Serve(listener) }()
	t.Cleanup(func() {
		_ = node.Close()
		<-done
	})
	return listener.Addr().String()
}

// nodeGate is the environment variable that makes tests with a connect-node server fail, rather
// than skip, where they cannot run.
const nodeGate = "HEADGATE_NODE"

// connectNode serves it with connect-node (testdata/connectnode). It returns the address.
func (p *plain) connectNode(t *testing.T) string {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		if os.Getenv(nodeGate) != "" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing("Node is not installed")
	}
	dir := filepath.Join("testdata", "connectnode")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		missing("the packages are not installed: run npm ci in gateway/" + filepath.ToSlash(dir))
	}
	set := filepath.Join(t.TempDir(), "set.binpb")
	if err := os.WriteFile(set, p.old, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "server.mjs", set)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it may have ended with the test's context
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
}

func TestPlainNode_IsServed(t *testing.T) {
	for name, serve := range map[string]func(*plain, *testing.T) string{
		"connect-go": (*plain).connectGo, "connect-node": (*plain).connectNode,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlain(t)
			endpoint := serve(p, t)
			e := startWith(t, func(c *gateway.Config) {
				c.Probes = probe.Config{
					Every:  10 * time.Millisecond,
					FanOut: fanout.Config{TTL: time.Millisecond, Timeout: 20 * time.Second},
				}
				c.Breakers = breaker.Config{FirstPause: time.Hour}
			}, nil, p.set)
			if err := e.routes.Replace(
				[]route.Node{{ID: "one", Kind: "plain", Endpoint: endpoint, Ready: true}}, nil,
			); err != nil {
				t.Fatal(err)
			}
			for _, protocol := range []string{"grpc", "native grpc", "connect+json", "connect+proto", "grpcweb"} {
				t.Run(protocol, func(t *testing.T) { e.callsPlain(t, p, protocol) })
			}
			eventually(t, "probes have asked the node", func() bool {
				_, text := e.adminGet(t, "/nodes")
				return strings.Contains(text, `"answer":"UNKNOWN"`) && strings.Contains(text, `"ready":true`)
			})
			if _, text := e.adminGet(t, "/nodes"); strings.Contains(text, `"breakers":`) {
				t.Errorf("a breaker is open: %s", text)
			}
		})
	}
}

// callsPlain calls each method of a plain node.
func (e *edge) callsPlain(t *testing.T, p *plain, protocol string) {
	t.Helper()
	client := e.client(protocol)
	call := func(name string, kind connect.StreamType, texts ...string) ([]string, error) {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", e.token(t, "acme", "plain.call"))
		stream, err := client.CallClientStream(ctx, p.method(name, kind))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stream.Close() }() // its error is Receive's
		for _, text := range texts {
			if err := stream.Send(p.note(text)); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			message := p.note("")
			switch err := stream.Receive(message); {
			case errors.Is(err, io.EOF):
				return got, nil
			case err != nil:
				return got, err
			}
			got = append(got, p.text(message))
		}
	}
	// Five calls of a method that the node lacks do not open a breaker.
	for range 6 {
		if _, err := call("Missing", connect.StreamTypeUnary, "?"); connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("unimplemented method: %v", err)
		}
	}
	for _, row := range []struct {
		name  string
		kind  connect.StreamType
		texts []string
		want  string
	}{
		{"Echo", connect.StreamTypeUnary, []string{"hello"}, "hello"},
		{"Echo", connect.StreamTypeUnary, []string{strings.Repeat("x", 200_000)}, strings.Repeat("x", 200_000)},
		{"Count", connect.StreamTypeServer, []string{"one two three"}, "one two three"},
		{"Join", connect.StreamTypeClient, []string{"one", "two", "three"}, "one two three"},
		{"Talk", connect.StreamTypeBidi, []string{"one", "two"}, "one two"},
	} {
		if row.kind == connect.StreamTypeBidi && (protocol == "grpcweb" || strings.HasPrefix(protocol, "connect")) {
			continue // the client speaks HTTP/1.1
		}
		if got, err := call(row.name, row.kind, row.texts...); err != nil || strings.Join(got, " ") != row.want {
			t.Errorf("%s of %.20q: %.40q, %v", row.name, row.texts, got, err)
		}
	}
	_, err := call("Fail", connect.StreamTypeUnary, "the detail")
	var verdict *connect.Error
	if !errors.As(err, &verdict) || verdict.Code() != connect.CodeNotFound || verdict.Message() != "no such note" ||
		len(verdict.Details()) != 1 {
		t.Fatalf("Fail: %v", err)
	}
	detail := p.note("")
	if err := proto.Unmarshal(verdict.Details()[0].Value, detail); err != nil || p.text(detail) != "the detail" ||
		verdict.Details()[0].Type != "test.Note" {
		t.Errorf("detail %s %q, %v", verdict.Details()[0].Type, p.text(detail), err)
	}
}
