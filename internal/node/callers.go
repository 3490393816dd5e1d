package node

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/contextkit"
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
func (c callerSettings) callers(kind contextkit.Kind) *rpc.Callers {
	return &rpc.Callers{
		Names:   map[contextkit.Kind][]string{contextkit.KindGateway: c.Gateway, contextkit.KindControl: c.Control},
		Unnamed: c.Unnamed,
		May:     func(procedure string) []contextkit.Kind { return callersOf(kind, procedure) },
	}
}

// direct are the methods that roles other than the gateway call.
var direct = map[string][]contextkit.Kind{
	"/projection.gateway.v1.QueryService/ListViews": {contextkit.KindControl}, // whether a move's target has the views
}

// callersOf returns the roles that may call a procedure of a node of a kind: gateways the methods
// whose policy has the kind as its upstream, and reflection; control those of [direct]; and all
// certificates of the authority the health protocol. No role may call another method.
func callersOf(kind contextkit.Kind, procedure string) []contextkit.Kind {
	service, method, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	switch {
	case service == "grpc.health.v1.Health":
		return []contextkit.Kind{rpc.AnyCaller}
	case strings.HasPrefix(service, "grpc.reflection."):
		return []contextkit.Kind{contextkit.KindGateway}
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
	if !ok || policy.GetUpstream() != kind.String() {
		return nil
	}
	return append([]contextkit.Kind{contextkit.KindGateway}, direct[procedure]...)
}
