package main_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/natstest"
)

// thingFile describes the service test.Things, whose one method is under path; without a
// policy if path is "".
func thingFile(path string) *descriptorpb.FileDescriptorProto {
	options := &descriptorpb.MethodOptions{}
	if path != "" {
		proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
			Anonymous:   true,
			TenantScope: policyv1.TenantScope_TENANT_SCOPE_PLATFORM,
			Upstream:    "thing",
			Timeout:     durationpb.New(5 * time.Second),
		})
		proto.SetExtension(options, annotations.E_Http,
			&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}})
	}
	field := &descriptorpb.FieldDescriptorProto{
		Name:   proto.String("value"),
		Number: proto.Int32(1),
		Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	return &descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/things.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Thing"), Field: []*descriptorpb.FieldDescriptorProto{field}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{Name: proto.String("Things"), Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Get"), InputType: proto.String(".test.Thing"),
				OutputType: proto.String(".test.Thing"), Options: options,
			}}},
		},
	}
}

type thingServices struct{}

func (thingServices) GetServiceInfo() map[string]grpc.ServiceInfo {
	return map[string]grpc.ServiceInfo{"test.Things": {}}
}

// startThings starts a foreign node on grpc-go at addr that describes itself; the returned
// function ends it.
func startThings(t *testing.T, addr, path string) func() {
	t.Helper()
	file, err := protodesc.NewFile(thingFile(path), protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	node := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(stream); method != "/test.Things/Get" {
			return status.Error(codes.Unimplemented, "not served here") // such as the health protocol
		}
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return stream.SendMsg(wrapperspb.String("of the node"))
	}))
	reflectionv1.RegisterServerReflectionServer(node,
		reflection.NewServerV1(reflection.ServerOptions{Services: thingServices{}, DescriptorResolver: files}))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- node.Serve(listener) }()
	ended := false
	stop := func() {
		if !ended {
			ended = true
			node.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// reflecting are settings of a gateway with a node that is asked for its services, and the
// addresses of the gateway and the node.
func reflecting(t *testing.T, nats string) (path, gateway, node string) {
	t.Helper()
	dir := t.TempDir()
	keys, path := filepath.Join(dir, "keys.json"), filepath.Join(dir, "headgate.yaml")
	gateway, node = freePort(t), freePort(t)
	settings := fmt.Sprintf(`
nats: {url: %q}
gateway:
  server: {listen: %q}
  grpc: 127.0.0.1:0
  admin: 127.0.0.1:0
  auth: {issuer: headgate-dev, audience: headgate, keys: %q}
  probes: {every: 200ms}
  nodes: [{id: thing-1, kind: thing, endpoint: %q, reflect: true}]
`, nats, gateway, keys, node)
	for name, text := range map[string]string{keys: headgate(t, "keys", "--data", dir), path: settings} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path, "http://" + gateway, node
}

func TestReflect_GatewayStartsWhileTheNodeIsAway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls the platform; other tests cover this under the race detector")
	}
	bus := natstest.Server(t, &server.Options{})
	path, gateway, node := reflecting(t, bus.ClientURL())
	g := &process{path: binary, ready: "listens on", args: []string{"serve", "gateway", "--config", path}}
	g.start(t)
	defer g.stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answers := func(url string, want int, text string) {
		t.Helper()
		last := ""
		if err := eventually(ctx, url, func() (bool, error) {
			code, body, err := get(ctx, gateway+url)
			last = fmt.Sprint(code, " ", body)
			return code == want && strings.Contains(body, text), err
		}); err != nil {
			t.Fatalf("%v; last response %s", err, last)
		}
	}
	answers("/v1/things", http.StatusNotFound, "")
	answers("/ready", http.StatusServiceUnavailable, `"thing":"a node has not described its services yet"`)
	stop := startThings(t, node, "/v1/things")
	answers("/v1/things", http.StatusOK, "of the node")
	answers("/ready", http.StatusOK, `"ready"`)
	// It restarts with another version of its services.
	stop()
	answers("/v1/things", http.StatusServiceUnavailable, "")
	startThings(t, node, "/v2/things")
	answers("/v2/things", http.StatusOK, "of the node")
	answers("/v1/things", http.StatusNotFound, "")
}

func TestReflect_CheckNamesTheNodesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	path, _, node := reflecting(t, "nats://127.0.0.1:1")
	check := func(code int, want string) {
		t.Helper()
		output, err := exec.CommandContext(t.Context(), binary, "serve", "gateway", "--config", path,
			"--check").CombinedOutput()
		got := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			got = exit.ExitCode()
		}
		if got != code || !strings.Contains(string(output), want) ||
			!strings.Contains(string(output), "the settings of the gateway can be used") {
			t.Errorf("exit code %d, want %d with %q:\n%s", got, code, want, output)
		}
	}
	check(3, "node thing-1 (thing) at "+node+" cannot be asked for its services")
	stop := startThings(t, node, "/v1/things")
	check(0, "can be used")
	stop()
	startThings(t, node, "")
	check(1, "no method has a policy")
}

func TestDescriptors_SetWithoutAPolicyIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	path, _, _ := reflecting(t, "nats://127.0.0.1:1")
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{thingFile("")}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "things.binpb")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(settings, "  descriptors: [%q]\n", file), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"serve", "gateway", "--config", path},
		{"serve", "gateway", "--config", path, "--check"},
		{"dev", "--data", t.TempDir(), "--descriptors", file},
	} {
		output, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		if want := "descriptors.0: " + file + ": of its 1 methods no method has a policy"; err == nil ||
			!strings.Contains(string(output), want) {
			t.Errorf("%v: %v, want %q:\n%s", args, err, want, output)
		}
	}
}
