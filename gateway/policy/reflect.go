package policy

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// maxReflectedFiles bounds the files that a node may describe.
const maxReflectedFiles = 2000

// Reflect requests the descriptors of all services of a node (gRPC server reflection) and returns
// them as a serialized google.protobuf.FileDescriptorSet for [NewCatalog], each file after its
// imports. ctx must carry the transport contract of the platform and the values that client's
// transport needs.
func Reflect(ctx context.Context, client *connect.Client) ([]byte, error) {
	stream := grpcreflect.NewClient(client).NewStream(ctx)
	defer func() { _ = stream.Close() }()
	services, err := stream.ListServices()
	if err != nil {
		return nil, fmt.Errorf("policy: list the node's services: %w", err)
	}
	slices.Sort(services) // equal services yield equal sets
	r := reflected{stream: stream, files: map[string]*descriptorpb.FileDescriptorProto{}, done: map[string]bool{}}
	for _, service := range services {
		if err := r.service(service); err != nil {
			return nil, fmt.Errorf("policy: describe %s: %w", service, err)
		}
	}
	return proto.Marshal(&r.set)
}

// reflected collects the files that a node describes.
type reflected struct {
	stream *grpcreflect.ClientStream
	files  map[string]*descriptorpb.FileDescriptorProto
	done   map[string]bool
	set    descriptorpb.FileDescriptorSet
}

func (r *reflected) service(name protoreflect.FullName) error {
	files, err := r.stream.FileContainingSymbol(name)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("the node describes no file")
	}
	r.take(files)
	for _, file := range files {
		if err := r.add(file.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func (r *reflected) take(files []*descriptorpb.FileDescriptorProto) {
	for _, file := range files {
		r.files[file.GetName()] = file
	}
}

// add adds a file to the set, after its imports. Nodes may send imports separately.
func (r *reflected) add(name string) error {
	if r.done[name] {
		return nil
	}
	if len(r.done) >= maxReflectedFiles {
		return fmt.Errorf("the node describes more than %d files", maxReflectedFiles)
	}
	r.done[name] = true
	if r.files[name] == nil {
		files, err := r.stream.FileByFilename(name)
		if err != nil {
			return err
		}
		r.take(files)
		if r.files[name] == nil {
			return fmt.Errorf("the node does not describe %s, which is imported", name)
		}
	}
	for _, imported := range r.files[name].GetDependency() {
		if err := r.add(imported); err != nil {
			return err
		}
	}
	r.set.File = append(r.set.File, r.files[name])
	return nil
}
