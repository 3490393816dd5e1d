package policy

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/headgate/headgate/contextkit"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// Description is what a node of a kind describes: the services of a serialized
// google.protobuf.FileDescriptorSet.
type Description struct {
	kind     contextkit.Kind
	services map[string]bool
	// files are the files with services, by path.
	files map[string]*descriptorpb.FileDescriptorProto
}

// Describe reads the descriptor set of a node. Errors: the set cannot be read, a policy names
// another kind of node as its upstream, or the set has a service of the platform or of the catalog
// in another file.
func (c *Catalog) Describe(kind contextkit.Kind, data []byte) (*Description, error) {
	var set descriptorpb.FileDescriptorSet
	if err := (proto.UnmarshalOptions{Resolver: protoregistry.GlobalTypes}).Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("policy: it is no FileDescriptorSet: %w", err)
	}
	d := &Description{kind: kind, services: map[string]bool{}, files: map[string]*descriptorpb.FileDescriptorProto{}}
	for _, file := range set.GetFile() {
		if _, err := c.FindFileByPath(file.GetName()); err == nil {
			continue // the catalog's file is used
		}
		for _, service := range file.GetService() {
			name := service.GetName()
			if pkg := file.GetPackage(); pkg != "" {
				name = pkg + "." + name
			}
			if _, err := c.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
				return nil, fmt.Errorf("policy: %s declares the service %s, which is not a service of nodes of kind %q",
					file.GetName(), name, kind)
			}
			for _, method := range service.GetMethod() {
				policy, ok := proto.GetExtension(method.GetOptions(), policyv1.E_Policy).(*policyv1.Policy)
				if ok && policy != nil && policy.GetUpstream() != kind.String() {
					return nil, fmt.Errorf(
						"policy: %s.%s has the upstream %q, and is described by a node of kind %q: a node describes "+
							"services of its kind",
						name, method.GetName(), policy.GetUpstream(), kind,
					)
				}
			}
			d.services[name], d.files[file.GetName()] = true, file
		}
	}
	return d, nil
}

// Conflict returns an error if nodes of another kind describe a service of d, or describe a file
// with services differently.
func (d *Description) Conflict(other *Description) error {
	if d.kind == other.kind {
		return nil
	}
	for name := range d.services {
		if other.services[name] {
			return fmt.Errorf(
				"policy: the service %s is described by nodes of kind %q, and cannot be by one of kind %q", name,
				other.kind, d.kind,
			)
		}
	}
	for path, file := range d.files {
		if described := other.files[path]; described != nil && !proto.Equal(described, file) {
			return fmt.Errorf("policy: %s is described differently by nodes of kind %q", path, other.kind)
		}
	}
	return nil
}
