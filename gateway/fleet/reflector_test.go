package fleet

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/upstream"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/fleet"
)

// services is a grpc-go node that describes test.Things by reflection.
type services struct{ field string }

func (services) GetServiceInfo() map[string]grpc.ServiceInfo {
	return map[string]grpc.ServiceInfo{"test.Things": {}}
}

// start serves at addr until the returned function is called. Without a policy the service has no method to serve.
func (s services) start(t *testing.T, addr string, withPolicy bool) (endpoint string, stop func()) {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	if withPolicy {
		proto.SetExtension(
			options, policyv1.E_Policy,
			&policyv1.Policy{
				Anonymous:   true,
				TenantScope: policyv1.TenantScope_TENANT_SCOPE_PLATFORM,
				Upstream:    "thing",
			},
		)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/things.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Thing"), Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String(s.field), Number: proto.Int32(1),
				Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{Name: proto.String("Things"), Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Get"), InputType: proto.String(".test.Thing"),
				OutputType: proto.String(".test.Thing"), Options: options,
			}}},
		},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	node := grpc.NewServer()
	reflectionv1.RegisterServerReflectionServer(node,
		reflection.NewServerV1(reflection.ServerOptions{Services: s, DescriptorResolver: files}))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = node.Serve(listener) })
	stop = sync.OnceFunc(func() {
		node.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// catalog records what a reflector describes.
type catalog struct {
	described chan string // node and field
	mu        sync.Mutex
	kinds     map[string]contextkit.Kind // undescribed
}

func newCatalog() *catalog {
	return &catalog{described: make(chan string, 16), kinds: map[string]contextkit.Kind{}}
}

func (c *catalog) Describe(node string, _ contextkit.Kind, _ time.Time, set []byte) error {
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(set, &files); err != nil {
		return err
	}
	for _, file := range files.GetFile() {
		if file.GetPackage() == "test" {
			c.described <- node + " " + file.GetMessageType()[0].GetField()[0].GetName()
		}
	}
	return nil
}

func (c *catalog) SetUndescribed(node string, kind contextkit.Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[node] = kind
}

// next returns the next description.
func (c *catalog) next(t *testing.T) string {
	t.Helper()
	select {
	case described := <-c.described:
		return described
	case <-t.Context().Done():
	case <-time.After(30 * time.Second):
	}
	t.Fatal("no node is described")
	return ""
}

func run(t *testing.T, r *Reflector) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func TestReflector_NodesOfTheSettingsAreAskedAgain(t *testing.T) {
	t.Parallel()
	endpoint, stop := services{"first"}.start(t, "127.0.0.1:0", true)
	stop()
	c := newCatalog()
	r := NewReflector(c, []Node{{ID: "thing-1", Kind: "thing", Endpoint: endpoint}}, upstream.PoolConfig{},
		zerolog.Nop())
	r.delays = backoff.Delays{First: time.Millisecond, Longest: 50 * time.Millisecond}
	r.DescribeAll(t.Context())
	if c.kinds["thing-1"] != "thing" {
		t.Errorf("undescribed: %v, want thing", c.kinds)
	}
	run(t, r)
	_, stop = services{"first"}.start(t, endpoint, true)
	if got := c.next(t); got != "thing-1 first" {
		t.Errorf("described: %s", got)
	}
	stop()
	services{"second"}.start(t, endpoint, true)
	if got := c.next(t); got != "thing-1 second" {
		t.Errorf("described: %s", got)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds["thing-1"] != "" {
		t.Errorf("undescribed: %v, want none", c.kinds)
	}
}

func TestReflector_AnnouncedNodesAreAskedOncePerStart(t *testing.T) {
	t.Parallel()
	endpoint, _ := services{"field"}.start(t, "127.0.0.1:0", true)
	c := newCatalog()
	r := NewReflector(c, nil, upstream.PoolConfig{}, zerolog.Nop())
	run(t, r)
	first := fleet.Node{
		ID:       "a",
		Kind:     "thing",
		Endpoint: endpoint,
		Started:  time.Unix(1, 0),
	}
	again := first
	again.Started = time.Unix(2, 0)
	away := fleet.Node{ID: "away", Endpoint: "127.0.0.1:1"}
	for _, node := range []fleet.Node{first, first, away, again, {ID: "b", Endpoint: endpoint}} {
		r.Announce(node)
	}
	for _, want := range []string{"a field", "a field", "b field"} {
		if got := c.next(t); got != want {
			t.Errorf("described: %s, want %s", got, want)
		}
	}
}

func TestReflector_AnnouncementsBeyondTheQueueAreDropped(t *testing.T) {
	r := NewReflector(newCatalog(), nil, upstream.PoolConfig{}, zerolog.Nop())
	defer r.Close()
	for range maxQueuedNodes + 1 {
		r.Announce(fleet.Node{}) // it must not block
	}
	if len(r.announced) != maxQueuedNodes {
		t.Errorf("%d nodes are queued", len(r.announced))
	}
}

func TestCheck_ReportsNodesThatCannotBeServed(t *testing.T) {
	t.Parallel()
	good, _ := services{"field"}.start(t, "127.0.0.1:0", true)
	bare, _ := services{"field"}.start(t, "127.0.0.1:0", false)
	for _, test := range []struct {
		endpoint, want string
		away           bool
	}{
		{good, "", false},
		{bare, "no method has a policy", false},
		{"127.0.0.1:1", "node n (thing) at 127.0.0.1:1 cannot be asked for its services", true},
	} {
		err := Check(t.Context(), []Node{{"n", "thing", test.endpoint}}, upstream.PoolConfig{})
		if test.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if _, away := errors.AsType[NodesAwayError](err); err == nil || away != test.away ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.endpoint, err, test.want)
		}
		if errors.Is(err, policy.ErrNoPolicy) == test.away {
			t.Errorf("%s: %v", test.endpoint, err)
		}
	}
}
