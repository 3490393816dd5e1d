package contextkit

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// NewClient returns a client over transport that injects the contract into
// every call. It is the only way to make one: a call whose context carries no
// tenant (or platform scope) and trace fails with INTERNAL before anything is
// sent. Further interceptors run inside, in argument order.
func NewClient(transport connect.Transport, interceptors ...connect.ClientInterceptor) *connect.Client {
	return connect.NewClient(transport, append([]connect.ClientInterceptor{injectInterceptor}, interceptors...)...)
}

func injectInterceptor(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		info, ok := connect.CallInfoForClientContext(ctx)
		if !ok {
			ctx, info = connect.NewClientContext(ctx)
		}
		if err := Inject(ctx, info.RequestHeader()); err != nil {
			return nil, connect.Errorf(connect.CodeInternal, "%s is called without context",
				spec.Procedure).WithCause(err)
		}
		return next(ctx, spec)
	}
}

// ServerInterceptor takes the contract out of an incoming call, puts it into
// the handler's context and the ids into the response. It refuses, with
// INVALID_ARGUMENT, a duplicated or malformed tenant, and a call without tenant
// to a method whose policy is scoped to one. Methods without a policy (health,
// reflection) are platform calls when they name no tenant.
func ServerInterceptor(next connect.ServerFunc) connect.ServerFunc {
	return enter(next, true)
}

// EdgeInterceptor is [ServerInterceptor] for the gateway, where a call's tenant
// may come from its credential: a missing one is not refused here.
func EdgeInterceptor(next connect.ServerFunc) connect.ServerFunc {
	return enter(next, false)
}

func enter(next connect.ServerFunc, needTenant bool) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, ok := connect.CallInfoForServerContext(ctx)
		if !ok {
			return connect.NewError(connect.CodeInternal, "the call carries no metadata")
		}
		ctx, rc := carryEmpty[RequestContext](ctx)
		err := rc.extract(info.RequestHeader())
		InjectResponse(rc, info.ResponseHeader())
		if err != nil {
			return connect.NewError(connect.CodeInvalidArgument, err.Error())
		}
		if rc.TenantID.IsZero() {
			scoped := tenantScoped(spec)
			if scoped && needTenant {
				return connect.Errorf(connect.CodeInvalidArgument, "%s is missing: %s is called for one tenant",
					HeaderTenantID, spec.Procedure)
			}
			rc.Platform = !scoped
		}
		return next(ctx, spec, stream)
	}
}

// tenantScoped reports whether the method's policy asks for a tenant.
func tenantScoped(spec connect.Spec) bool {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return false
	}
	policy, ok := proto.GetExtension(method.Options(), policyv1.E_Policy).(*policyv1.Policy)
	return ok && policy.GetTenantScope() == policyv1.TenantScope_TENANT_SCOPE_TENANT
}
