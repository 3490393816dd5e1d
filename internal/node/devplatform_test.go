package node

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
)

// devPlatform is a development platform in this process, with gRPC connections to each of its roles.
type devPlatform struct {
	*platform
	conns map[string]*grpc.ClientConn // by kind of node
}

// loopback is an address with a port that the system chooses.
const loopback = "127.0.0.1:0"

// startDev starts a platform of the tenants acme, globex and initech that runs a model.
func startDev(t *testing.T, model string) *devPlatform {
	t.Helper()
	return startDevWith(t, DevConfig{
		Data:             t.TempDir(),
		Model:            model,
		Tenants:          []string{"acme", "globex", "initech"},
		Listen:           loopback,
		GRPCListen:       loopback,
		AdminListen:      loopback,
		AggregateListen:  loopback,
		ProjectionListen: loopback,
		ControlListen:    loopback,
		RunnerListen:     loopback,
		Webhook:          []string{"127.0.0.1"},
		LazySync:         true,
		LogLevel:         "error",
	})
}

// startDevWith starts a platform.
func startDevWith(t *testing.T, c DevConfig) *devPlatform {
	t.Helper()
	p, err := newPlatform(contextkit.PlatformContext(t.Context()), &c, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	d := &devPlatform{platform: p, conns: map[string]*grpc.ClientConn{}}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.start(contextkit.PlatformContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	running.Go(func() {
		if err := rpc.RunLayers(ctx, d.layers()...); err != nil {
			t.Error(err)
		}
	})
	for kind, addr := range map[string]string{
		"gateway":    d.edge.gateway.GRPCAddr(),
		"aggregate":  d.aggregate.server.Addr(),
		"projection": d.projection.server.Addr(),
		"runner":     d.runner.server.Addr(),
		"control":    d.control.server.Addr(),
	} {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		d.conns[kind] = conn
		t.Cleanup(func() { _ = conn.Close() })
	}
	return d
}

// announceNode announces a further node that serves no tenant, at the address of a running one.
func (d *devPlatform) announceNode(t *testing.T, id string, of *service) {
	t.Helper()
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(context.Background()))
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	running.Go(func() {
		node := fleet.Node{ID: id, Kind: of.member.kind, Endpoint: of.endpoint()}
		if err := fleet.Announce(ctx, d.js, node, func(context.Context, *fleet.Node) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

// token returns the metadata of a credential for tenants, separated by commas, with all rights of the
// platform's methods.
func (d *devPlatform) token(t *testing.T, tenants string) []string {
	t.Helper()
	var rights []string
	for _, m := range policedMethods() {
		if right := policyOf(m).GetRight(); right != "" && !slices.Contains(rights, right) {
			rights = append(rights, right)
		}
	}
	principal, err := auth.NewPrincipal("tester-of-"+strings.ReplaceAll(tenants, ",", "-"), strings.Split(tenants, ","),
		rights)
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.issuer.Issue(principal, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"authorization", "Bearer " + token}
}

// call calls a method at a kind of node with metadata in pairs, and returns its first answer that is not
// empty.
func (d *devPlatform) call(
	t *testing.T, kind string, m protoreflect.MethodDescriptor, req proto.Message, header ...string,
) (proto.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), header...), time.Minute)
	defer cancel() // ends a stream after its first answer
	stream, err := d.conns[kind].NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer()}, procedureOf(m),
		grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	answer, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	for {
		res := answer.New().Interface()
		if err := stream.RecvMsg(res); err != nil {
			return nil, err
		}
		if !m.IsStreamingServer() || proto.Size(res) > 0 {
			return res, nil
		}
	}
}

// mustCall is call for calls that succeed.
func (d *devPlatform) mustCall(
	t *testing.T, kind string, m protoreflect.MethodDescriptor, req proto.Message, header ...string,
) proto.Message {
	t.Helper()
	res, err := d.call(t, kind, m, req, header...)
	if err != nil {
		t.Fatalf("%s of %v: %v", m.FullName(), req, err)
	}
	return res
}

// method returns the descriptor of a method.
func method(t *testing.T, name protoreflect.FullName) protoreflect.MethodDescriptor {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		t.Fatalf("%s is no method", name)
	}
	return m
}

func procedureOf(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// policyOf returns the policy of a method; nil: it has none.
func policyOf(m protoreflect.MethodDescriptor) *policyv1.Policy {
	p, _ := proto.GetExtension(m.Options(), policyv1.E_Policy).(*policyv1.Policy)
	return p
}

// policedMethods returns the methods with a policy of all services in this program.
func policedMethods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				if m := methods.Get(j); policyOf(m) != nil {
					all = append(all, m)
				}
			}
		}
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.MethodDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return all
}
