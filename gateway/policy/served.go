package policy

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// ErrNoPolicy is the error that [CheckServed] wraps.
var ErrNoPolicy = errors.New(
	"no method has a policy, so none would be served; set the option (headgate.policy.v1.policy) of each method that " +
		"clients may call",
)

// CheckServed returns an error that wraps [ErrNoPolicy] if the serialized
// google.protobuf.FileDescriptorSet has methods and none of them has a policy. A set without
// methods only adds types, such as those of google.protobuf.Any values.
func CheckServed(data []byte) error {
	var set descriptorpb.FileDescriptorSet
	if err := (proto.UnmarshalOptions{Resolver: protoregistry.GlobalTypes}).Unmarshal(data, &set); err != nil {
		return fmt.Errorf("not a FileDescriptorSet: %w", err)
	}
	methods := 0
	for _, file := range set.GetFile() {
		for _, service := range file.GetService() {
			for _, method := range service.GetMethod() {
				if proto.HasExtension(method.GetOptions(), policyv1.E_Policy) {
					return nil
				}
				methods++
			}
		}
	}
	if methods == 0 {
		return nil
	}
	return fmt.Errorf("of its %d methods %w", methods, ErrNoPolicy)
}
