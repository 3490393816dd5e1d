package gateway_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
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

const (
	// memoryShare bounds the memory of one tenant's messages.
	memoryShare = 8 << 20
	// unreadCalls is the number of calls of an attack that requests large answers and does not read.
	unreadCalls = 120
	// largeBytes is the size of these answers.
	largeBytes = 1 << 20
)

func heapInUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // buffers in pools outlive one
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// archiveTimeout is the timeout of calls of an archive: longer than the test.
const archiveTimeout = 5 * time.Minute

// archive is a service that the gateway knows from a descriptor set only. Its unary method returns largeBytes bytes.
type archive struct {
	set  []byte
	desc protoreflect.MethodDescriptor
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
		Right:       "archive.read",
		TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:    "ticker",
		Timeout:     durationpb.New(archiveTimeout),
	})
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/archive.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Volume"), Field: []*descriptorpb.FieldDescriptorProto{
				{
					Name:   proto.String("content"),
					Number: proto.Int32(1),
					Type:   descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum(),
					Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
			}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{
			{Name: proto.String("Archive"), Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Read"), InputType: proto.String(".test.Volume"),
				OutputType: proto.String(".test.Volume"), Options: options,
			}}},
		},
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{desc: fd.Services().Get(0).Methods().Get(0)}
	if a.set, err = proto.Marshal(
		&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}},
	); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *archive) register(server *connect.Server) {
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/test.Archive/Read", StreamType: connect.StreamTypeUnary, Schema: a.desc},
		Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			volume := dynamicpb.NewMessage(a.desc.Input())
			if err := stream.Receive(volume); err != nil {
				return err
			}
			volume.Set(a.desc.Input().Fields().Get(0), protoreflect.ValueOfBytes(make([]byte, largeBytes)))
			return stream.Send(volume)
		},
	})
}

// A client that does not read its answers, which the gateway then buffers, occupies its
// own tenant's share of the memory: its further calls are refused, and the other tenants
// lose none, also at the node that answers both.
func TestAnswers_UnreadOnesDoNotAffectOtherTenants(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory, for a minute under the race detector; other tests run the same code there")
	}
	everyUpstream(t, func(t *testing.T, start starter) {
		for name, url := range map[string]func(*edge) string{
			"main port": func(e *edge) string { return e.url },
			"gRPC port": func(e *edge) string { return e.grpc },
		} {
			t.Run(name, func(t *testing.T) {
				a := newArchive(t)
				e := start(func(c *gateway.Config) {
					c.MaxBytes, c.TenantShare = 4*memoryShare, 0.25
					// An answer that waits until its call's deadline, or is cut off, would release memory to a
					// further call.
					c.MaxTimeout, c.Listen.WriteTimeout = archiveTimeout, archiveTimeout
				}, a.register, a.set)
				losesNothing(t, e, "before the attack")
				before := heapInUse()
				unread(t, url(e), e.token(t, "acme", "archive.read"), unreadCalls)
				losesNothing(t, e, "during the attack")
				// This includes the memory of the node and of the client's sockets. Without a bound
				// it is that of all answers: 120 MiB.
				if grown := heapInUse() - before; grown > 10*memoryShare {
					t.Errorf("%d calls of %d bytes each use %d MiB of memory", unreadCalls, largeBytes, grown>>20)
				}
			})
		}
	})
}

// unread makes the calls on one connection whose windows it never opens, and returns when all are
// rejected except the ones that the tenant's share permits.
func unread(t *testing.T, url, token string, calls int) {
	t.Helper()
	r := connectRaw(t, url)
	refused := make(chan struct{}, calls)
	var (
		reading sync.WaitGroup
		mu      sync.Mutex
		others  []string // statuses of calls that ended in another way
	)
	reading.Go(func() {
		for {
			f, err := r.framer.ReadFrame()
			if err != nil {
				return
			}
			headers, ok := f.(*http2.MetaHeadersFrame)
			if !ok || !headers.StreamEnded() {
				continue
			}
			for _, field := range headers.Fields {
				switch {
				case field.Name == "grpc-status" && field.Value == "8": // RESOURCE_EXHAUSTED
					refused <- struct{}{}
				case field.Name == "grpc-status" || field.Name == "grpc-message":
					mu.Lock()
					others = append(others, field.Value)
					mu.Unlock()
				}
			}
		}
	})
	t.Cleanup(func() { r.conn.Close(); reading.Wait() })
	for n := range calls {
		id := uint32(2*n + 1)
		if err := r.begin(
			id, ":method", "POST", ":scheme", "http", ":authority", "edge", ":path", "/test.Archive/Read",
			"content-type", "application/grpc+proto", "te", "trailers", "authorization", token,
		); err != nil {
			t.Fatal(err)
		}
		if err := r.framer.WriteData(id, true, make([]byte, 5)); err != nil { // an empty message
			t.Fatal(err)
		}
	}
	want := calls - memoryShare/largeBytes
	for n := range want {
		select {
		case <-refused:
		case <-time.After(time.Minute):
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("%d of %d calls rejected, want at least %d; others ended with %q", n, calls, want, others)
		}
	}
}
