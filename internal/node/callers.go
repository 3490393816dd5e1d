package node

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/rpc"
)

// callerSettings are the certificates of callers that name no role by a URI.
type callerSettings struct {
	Gateway []string `yaml:"gateway"`
	Control []string `yaml:"control"`
	Unnamed bool     `yaml:"unnamed"`
}

// callers returns which roles may call the nodes of a kind.
func (c callerSettings) callers(kind string) *rpc.Callers {
	return &rpc.Callers{
		Names:   map[string][]string{kindGateway: c.Gateway, kindControl: c.Control},
		Gateway: kindGateway,
		Unnamed: c.Unnamed,
		May:     func(procedure string) []string { return callersOf(kind, procedure) },
	}
}

// direct are the methods that roles other than the gateway call.
var direct = map[string][]string{
	"/projection.gateway.v1.QueryService/ListViews": {kindControl}, // whether a move's target has the views
}

// callersOf returns the roles that may call a procedure of a node of a kind: gateways the methods
// whose policy has the kind as its upstream, and reflection; control those of [direct]; and all
// certificates of the authority the health protocol. No role may call another method.
func callersOf(kind, procedure string) []string {
	service, method, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	switch {
	case service == "grpc.health.v1.Health":
		return []string{"*"}
	case strings.HasPrefix(service, "grpc.reflection."):
		return []string{kindGateway}
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	described, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil
	}
	desc := described.Methods().ByName(protoreflect.Name(method))
	if desc == nil {
		return nil
	}
	policy, ok := proto.GetExtension(desc.Options(), policyv1.E_Policy).(*policyv1.Policy)
	if !ok || policy.GetUpstream() != kind {
		return nil
	}
	return append([]string{kindGateway}, direct[procedure]...)
}
