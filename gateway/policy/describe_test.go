package policy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/upstream"
)

// describing is a node that describes its services by given files.
type describing struct {
	reflectionv1.UnimplementedServerReflectionServer

	services []string
	symbols  map[string][]string // the files that are sent for a symbol
	names    map[string][]string // the files that are sent for a name
	imports  map[string][]string // of files
}

// ServerReflectionInfo implements the reflection protocol.
func (d describing) ServerReflectionInfo(stream reflectionv1.ServerReflection_ServerReflectionInfoServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		res := &reflectionv1.ServerReflectionResponse{OriginalRequest: req}
		switch {
		case req.GetFileContainingSymbol() != "":
			err = d.files(res, d.symbols, req.GetFileContainingSymbol())
		case req.GetFileByFilename() != "":
			err = d.files(res, d.names, req.GetFileByFilename())
		default:
			list := &reflectionv1.ListServiceResponse{}
			for _, name := range d.services {
				list.Service = append(list.Service, &reflectionv1.ServiceResponse{Name: name})
			}
			res.MessageResponse = &reflectionv1.ServerReflectionResponse_ListServicesResponse{
				ListServicesResponse: list,
			}
		}
		if err == nil {
			err = stream.Send(res)
		}
		if err != nil {
			return err
		}
	}
}

// files answers with the files that are sent for a key, or that there are none.
func (d describing) files(
	res *reflectionv1.ServerReflectionResponse, sent map[string][]string, key string,
) error {
	names, ok := sent[key]
	if !ok {
		res.MessageResponse = &reflectionv1.ServerReflectionResponse_ErrorResponse{
			ErrorResponse: &reflectionv1.ErrorResponse{
				ErrorCode:    int32(codes.NotFound),
				ErrorMessage: "the node does not know " + key,
			},
		}
		return nil
	}
	files := &reflectionv1.FileDescriptorResponse{}
	for _, name := range names {
		data, err := proto.Marshal(&descriptorpb.FileDescriptorProto{
			Name: proto.String(name), Dependency: d.imports[name],
		})
		if err != nil {
			return err
		}
		files.FileDescriptorProto = append(files.FileDescriptorProto, data)
	}
	res.MessageResponse = &reflectionv1.ServerReflectionResponse_FileDescriptorResponse{FileDescriptorResponse: files}
	return nil
}

// reflect returns what the node describes.
func (d describing) reflect(t *testing.T) ([]byte, error) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := grpc.NewServer()
	reflectionv1.RegisterServerReflectionServer(node, d)
	var serving sync.WaitGroup
	serving.Go(func() { _ = node.Serve(listener) })
	defer serving.Wait()
	defer node.Stop()
	pool := upstream.NewPool(upstream.PoolConfig{})
	defer pool.Close()
	ctx := upstream.WithEndpoint(contextkit.PlatformContext(t.Context()), listener.Addr().String())
	return policy.Reflect(ctx, contextkit.NewClient(upstream.NewTransport(pool)))
}

// A node may send a file's imports with it, or each one by its name; what it describes is one set of all files, each
// once and after its imports. A node that describes less, or too much, is not served.
func TestReflect_NodesMaySendFilesTogetherOrByName(t *testing.T) {
	diamond := map[string][]string{"top": {"left", "right"}, "left": {"bottom"}, "right": {"bottom"}}
	byName := map[string][]string{"left": {"left"}, "right": {"right"}, "bottom": {"bottom"}}
	chain := func(n int) describing {
		d := describing{
			services: []string{"test.A"},
			symbols:  map[string][]string{"test.A": nil},
			imports:  map[string][]string{},
		}
		for i := range n {
			name := fmt.Sprint(i)
			d.symbols["test.A"] = append(d.symbols["test.A"], name)
			if i > 0 {
				d.imports[name] = []string{fmt.Sprint(i - 1)}
			}
		}
		return d
	}
	one := func(sent []string, names, imports map[string][]string) describing {
		return describing{
			services: []string{"test.A"},
			symbols:  map[string][]string{"test.A": sent},
			names:    names,
			imports:  imports,
		}
	}
	for name, c := range map[string]struct {
		node  describing
		files []string // nil: an error
		err   string
	}{
		"together": {one([]string{"top", "left", "right", "bottom"}, nil, diamond),
			[]string{"bottom", "left", "right", "top"}, ""},
		"by name": {one([]string{"top"}, byName, diamond), []string{"bottom", "left", "right", "top"}, ""},
		"the same file for two services": {
			describing{
				services: []string{"test.A", "test.B"},
				symbols:  map[string][]string{"test.A": {"top"}, "test.B": {"top"}},
				names:    byName,
				imports:  diamond,
			},
			[]string{"bottom", "left", "right", "top"}, "",
		},
		"an import is missing": {
			one([]string{"top"}, map[string][]string{"left": {"left"}}, diamond), nil, "the node does not know bottom",
		},
		"another file than the import": {
			one([]string{"top"}, map[string][]string{"left": {"other"}}, diamond), nil, "does not describe left",
		},
		"no file":         {one([]string{}, nil, nil), nil, "describe test.A: the node describes no file"},
		"unknown service": {describing{services: []string{"test.A"}}, nil, "the node does not know test.A"},
		"2,000 files":     {chain(2000), chain(2000).symbols["test.A"], ""},
		"2,001 files":     {chain(2001), nil, "more than 2000 files"},
	} {
		data, err := c.node.reflect(t)
		if c.files == nil {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
			continue
		}
		var set descriptorpb.FileDescriptorSet
		if err == nil {
			err = proto.Unmarshal(data, &set)
		}
		var files []string
		for _, file := range set.GetFile() {
			files = append(files, file.GetName())
		}
		if err != nil || !slices.Equal(files, c.files) {
			t.Errorf("%s: %v, %v, want %v", name, files, err, c.files)
		}
	}
}

// Nodes of equal services yield equal sets, regardless of the order of their lists.
func TestReflect_EqualServicesYieldEqualSets(t *testing.T) {
	node := describing{
		services: []string{"test.A", "test.B"},
		symbols:  map[string][]string{"test.A": {"a"}, "test.B": {"b"}},
	}
	first, err := node.reflect(t)
	if err != nil {
		t.Fatal(err)
	}
	node.services = []string{"test.B", "test.A"}
	if second, err := node.reflect(t); err != nil || !bytes.Equal(first, second) {
		t.Errorf("%q, %v, want %q", second, err, first)
	}
}

// All files of a set are served, linked types stay known, and a second message of one name is rejected.
func TestCatalog_EveryFileOfASetCounts(t *testing.T) {
	also := func(change func(*descriptorpb.FileDescriptorProto)) []byte {
		var first descriptorpb.FileDescriptorSet
		if err := proto.Unmarshal(set(t, nil), &first); err != nil {
			t.Fatal(err)
		}
		second, ok := proto.Clone(first.GetFile()[0]).(*descriptorpb.FileDescriptorProto)
		if !ok {
			t.Fatal("not a file")
		}
		second.Name, second.Service = proto.String("test/also.proto"), nil
		change(second)
		data, err := proto.Marshal(&descriptorpb.FileDescriptorSet{
			File: append(first.GetFile(), second),
		})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	catalog, err := policy.NewCatalog(
		also(func(f *descriptorpb.FileDescriptorProto) { f.Package = proto.String("also") }),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"test.Thing", "also.Thing", "google.protobuf.Timestamp"} {
		message, err := catalog.FindMessageByName(protoreflect.FullName(name))
		if err != nil || message == nil || string(message.Descriptor().FullName()) != name {
			t.Errorf("%s: %v, %v", name, message, err)
		}
	}
	if _, err := policy.NewCatalog(also(func(*descriptorpb.FileDescriptorProto) {})); err == nil {
		t.Error("two files with a message of one name are accepted")
	}
}
