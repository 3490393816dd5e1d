package policy

import (
	"errors"
	"fmt"

	_ "google.golang.org/genproto/googleapis/api/httpbody" // known without being in a set
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Catalog holds the descriptors that the gateway knows: those linked into the binary, and those of
// descriptor sets. It also resolves the message types of google.protobuf.Any. It is complete before
// it is shared.
type Catalog struct {
	sets  [][]byte
	added protoregistry.Files
	types *dynamicpb.Types
}

// NewCatalog returns a catalog of the descriptors linked into the binary and of serialized
// google.protobuf.FileDescriptorSets. A file that is linked takes precedence over one in a set; a
// file in two sets must be equal in both.
func NewCatalog(sets ...[]byte) (*Catalog, error) {
	c := &Catalog{sets: sets}
	for n, data := range sets {
		if err := c.take(data, func(protoreflect.FileDescriptor) bool { return false }); err != nil {
			return nil, fmt.Errorf("policy: descriptor set %d: %w", n+1, err)
		}
	}
	c.types = dynamicpb.NewTypes(&c.added)
	return c, nil
}

// With returns a catalog with further sets, those of nodes that describe themselves, the newest
// first: where two differ, the newer one takes precedence, so that nodes of two versions can be
// present. A file of an older set that is inconsistent with the newer one is left out.
func (c *Catalog) With(newest ...[]byte) (*Catalog, error) {
	next, err := NewCatalog(c.sets...)
	if err != nil {
		return nil, err
	}
	newer := map[string]bool{} // files
	for n, data := range newest {
		err := next.take(data, func(known protoreflect.FileDescriptor) bool { return newer[known.Path()] })
		if err != nil && n == 0 {
			return nil, fmt.Errorf("policy: %w", err)
		}
		next.added.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
			if _, err := c.added.FindFileByPath(fd.Path()); err != nil {
				newer[fd.Path()] = true
			}
			return true
		})
	}
	next.types = dynamicpb.NewTypes(&next.added)
	return next, nil
}

// take adds the files of a set. For a file that differs from the known one, counts returns whether
// the known file takes precedence; otherwise the difference is an error.
func (c *Catalog) take(data []byte, counts func(known protoreflect.FileDescriptor) bool) error {
	var set descriptorpb.FileDescriptorSet
	// Options are parsed with the linked extensions, which include a method's policy and HTTP rule.
	if err := (proto.UnmarshalOptions{Resolver: protoregistry.GlobalTypes}).Unmarshal(data, &set); err != nil {
		return fmt.Errorf("not a FileDescriptorSet: %w", err)
	}
	for _, file := range set.GetFile() {
		known, err := c.FindFileByPath(file.GetName())
		switch {
		case errors.Is(err, protoregistry.NotFound):
		case err != nil:
			return err
		case isLinked(file.GetName()), counts(known), proto.Equal(protodesc.ToFileDescriptorProto(known), file):
			continue
		default:
			return fmt.Errorf("%s is in two sets and differs", file.GetName())
		}
		fd, err := protodesc.NewFile(file, c)
		if err != nil {
			return err
		}
		if err := c.added.RegisterFile(fd); err != nil {
			return err
		}
	}
	return nil
}

func isLinked(path string) bool {
	_, err := protoregistry.GlobalFiles.FindFileByPath(path)
	return err == nil
}

// Foreign returns the files that were added to the catalog, which describe services that do not belong
// to the platform. The files that are linked into the binary are not included.
func (c *Catalog) Foreign() Files { return &c.added }

// RangeFiles implements [Files].
func (c *Catalog) RangeFiles(yield func(protoreflect.FileDescriptor) bool) {
	more := true
	each := func(fd protoreflect.FileDescriptor) bool {
		more = yield(fd)
		return more
	}
	protoregistry.GlobalFiles.RangeFiles(each)
	if more {
		c.added.RangeFiles(each)
	}
}

// FindFileByPath implements protodesc.Resolver.
func (c *Catalog) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if fd, err := protoregistry.GlobalFiles.FindFileByPath(path); err == nil {
		return fd, nil
	}
	return c.added.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (c *Catalog) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return c.added.FindDescriptorByName(name)
}

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (c *Catalog) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if t, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil {
		return t, nil
	}
	return c.types.FindMessageByName(name)
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (c *Catalog) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return c.types.FindMessageByURL(url)
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (c *Catalog) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if t, err := protoregistry.GlobalTypes.FindExtensionByName(name); err == nil {
		return t, nil
	}
	return c.types.FindExtensionByName(name)
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (c *Catalog) FindExtensionByNumber(
	message protoreflect.FullName, number protoreflect.FieldNumber,
) (protoreflect.ExtensionType, error) {
	if t, err := protoregistry.GlobalTypes.FindExtensionByNumber(message, number); err == nil {
		return t, nil
	}
	return c.types.FindExtensionByNumber(message, number)
}
