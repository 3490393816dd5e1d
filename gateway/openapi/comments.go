package openapi

import (
	_ "embed"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// described is the serialized google.protobuf.FileDescriptorSet of the platform's protos with their
// comments, which generated Go code lacks.
//
//go:embed api.binpb
var described []byte

// comments finds the comments of descriptors: in the platform's protos, and in descriptor sets with
// source information.
type comments struct {
	files map[string]protoreflect.FileDescriptor // by path
}

func newComments() *comments {
	c := &comments{files: map[string]protoreflect.FileDescriptor{}}
	var set descriptorpb.FileDescriptorSet
	if proto.Unmarshal(described, &set) != nil {
		return c // not reached: it is embedded
	}
	for _, file := range set.GetFile() {
		// A test checks that all of them can be parsed.
		if fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles); err == nil {
			c.files[fd.Path()] = fd
		}
	}
	return c
}

// of returns the comment of a descriptor, one line per paragraph; "" if there is none.
func (c *comments) of(desc protoreflect.Descriptor) string {
	file := desc.ParentFile()
	if file == nil {
		return ""
	}
	location := file.SourceLocations().ByDescriptor(desc)
	if location.LeadingComments == "" {
		known, ok := c.files[file.Path()]
		if !ok {
			return ""
		}
		if same := within(known, desc.FullName()); same != nil {
			location = known.SourceLocations().ByDescriptor(same)
		}
	}
	var paragraphs []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(location.LeadingComments), "\n\n") {
		paragraphs = append(paragraphs, strings.Join(strings.Fields(paragraph), " "))
	}
	return strings.Join(paragraphs, "\n\n")
}

// summary returns the first sentence of a method's comment, and the whole comment if it is longer;
// without a comment, the method's name.
func (c *comments) summary(desc protoreflect.MethodDescriptor) (summary, description string) {
	text := c.of(desc)
	if text == "" {
		return string(desc.Name()), ""
	}
	first, _, _ := strings.Cut(text, "\n\n")
	if sentence, _, more := strings.Cut(first, ". "); more {
		first = sentence + "."
	}
	if first == text {
		return text, ""
	}
	return first, text
}

// within returns the descriptor of the name in a file; nil: there is none.
func within(file protoreflect.FileDescriptor, name protoreflect.FullName) protoreflect.Descriptor {
	var files protoregistry.Files
	if files.RegisterFile(file) != nil {
		return nil
	}
	found, err := files.FindDescriptorByName(name)
	if err != nil {
		return nil
	}
	return found
}
