// Package policy is the gateway's method table, read from protobuf descriptors:
// which methods are served, to whom, where they go and for how long.
//
// A method without a headgate.policy.v1 option is not in the table and so not
// served. A method with a policy that is incomplete keeps the gateway from
// starting: nothing is guessed.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/transcode"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Method is a method that the edge serves.
type Method struct {
	// Spec is the method's, for Connect.
	Spec connect.Spec
	// Input and Output transcode its messages.
	Input, Output *transcode.Program
	// Right is what the principal must hold; "" for an anonymous method.
	Right string
	// Anonymous says that callers without a credential are served.
	Anonymous bool
	// Tenant says that a call is for one tenant; else it is for the platform.
	Tenant bool
	// Upstream is the kind of node that answers.
	Upstream string
	// Timeout is how long a call may take.
	Timeout time.Duration
	// Audit says that every call is recorded.
	Audit bool
	// TenantField and KeyField are the request's fields for the tenant and the
	// idempotency key; 0: there is none.
	TenantField, KeyField protowire.Number
	// ResourcePath leads to the request's field for the resource, through
	// messages that may be repeated; nil: there is none.
	ResourcePath []frame.Step
	// PartField is the field beside the resource's that names a part of the resource; 0: there
	// is none.
	PartField protowire.Number
	// NodeRights are the actions of rights that the node checks by itself.
	NodeRights []string
	// EventIDField is the answer's field that says how far a stream has come, and
	// ResumeField the request's that resumes it there; 0: there is none.
	EventIDField, ResumeField protowire.Number
	// NodeField is the request's field for the node that the call operates; 0:
	// there is none.
	NodeField protowire.Number
	// ReasonField is the request's field for the operator's reason; 0: it has none.
	ReasonField protowire.Number
	// Priority says which calls go first when the gateway is nearly full.
	Priority limit.Priority
	// ETag describes the entity tags of its answers over HTTP; nil: they have none.
	ETag *ETag
	// Rules are its HTTP mappings.
	Rules []*annotations.HttpRule
}

// ETag describes how the entity tag of an answer is made.
type ETag struct {
	// Except is the answer's field that the tag does not depend on; 0: there is none.
	Except protowire.Number
}

// Retriable reports whether a call may be sent again when it is not known to
// have been received; keyed says that the request has an idempotency key.
func (m *Method) Retriable(keyed bool) bool {
	return keyed || m.Spec.IdempotencyLevel != connect.IdempotencyUnknown
}

// Table is the methods served. It is immutable.
type Table struct {
	methods     []*Method
	byProcedure map[string]*Method
	services    []string

	upstreams, tenantUpstreams []string
}

// Methods returns the methods in the descriptors' order.
func (t *Table) Methods() []*Method { return t.methods }

// Method returns the method of a procedure.
func (t *Table) Method(procedure string) (*Method, bool) {
	m, ok := t.byProcedure[procedure]
	return m, ok
}

// Names returns the services that have a method in the table, for reflection.
func (t *Table) Names() []string { return t.services }

// Upstreams returns the kinds of nodes that answer the methods, sorted.
func (t *Table) Upstreams() []string { return t.upstreams }

// TenantUpstreams returns the kinds of nodes that answer calls for one tenant, sorted.
func (t *Table) TenantUpstreams() []string { return t.tenantUpstreams }

// Files is a set of descriptors, such as protoregistry.GlobalFiles.
type Files interface {
	RangeFiles(func(protoreflect.FileDescriptor) bool)
}

// Build reads the table out of files.
func Build(files Files, compiler *transcode.Compiler) (*Table, error) {
	table := &Table{byProcedure: map[string]*Method{}}
	var failed error
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		services := file.Services()
		for i := range services.Len() {
			if failed = table.add(services.Get(i), compiler); failed != nil {
				return false
			}
		}
		return true
	})
	table.collectUpstreams()
	return table, failed
}

func (t *Table) collectUpstreams() {
	all, ofTenants := map[string]bool{}, map[string]bool{}
	for _, method := range t.methods {
		all[method.Upstream] = true
		if method.Tenant {
			ofTenants[method.Upstream] = true
		}
	}
	t.upstreams, t.tenantUpstreams = slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(ofTenants))
}

func (t *Table) add(service protoreflect.ServiceDescriptor, compiler *transcode.Compiler) error {
	served := false
	methods := service.Methods()
	for i := range methods.Len() {
		desc := methods.Get(i)
		policy, ok := proto.GetExtension(desc.Options(), policyv1.E_Policy).(*policyv1.Policy)
		if !ok || policy == nil {
			continue
		}
		method, err := newMethod(desc, policy, compiler)
		if err != nil {
			return fmt.Errorf("policy: %s: %w", desc.FullName(), err)
		}
		t.methods = append(t.methods, method)
		t.byProcedure[method.Spec.Procedure] = method
		served = true
	}
	if served {
		t.services = append(t.services, string(service.FullName()))
	}
	return nil
}

func newMethod(desc protoreflect.MethodDescriptor, policy *policyv1.Policy, compiler *transcode.Compiler) (*Method, error) {
	m := &Method{
		Spec: connect.Spec{
			StreamType: streamType(desc), IdempotencyLevel: idempotency(desc), Schema: desc,
			Procedure: "/" + string(desc.Parent().FullName()) + "/" + string(desc.Name()),
		},
		Input: compiler.Compile(desc.Input()), Output: compiler.Compile(desc.Output()),
		Right: policy.GetRight(), Upstream: policy.GetUpstream(), Timeout: policy.GetTimeout().AsDuration(), Audit: policy.GetAudit(),
		Anonymous: policy.GetAnonymous(), Priority: limit.Normal,
	}
	switch policy.GetPriority() {
	case policyv1.Priority_PRIORITY_LOW:
		m.Priority = limit.Low
	case policyv1.Priority_PRIORITY_HIGH:
		m.Priority = limit.High
	}
	var missing []string
	if m.Anonymous && (m.Right != "" || policy.GetTenantScope() != policyv1.TenantScope_TENANT_SCOPE_PLATFORM) {
		return nil, errors.New("its policy is anonymous and asks for a right or a tenant all the same")
	}
	if m.Right == "" && !m.Anonymous {
		missing = append(missing, "right")
	}
	if m.Upstream == "" {
		missing = append(missing, "upstream")
	}
	if m.Timeout <= 0 {
		missing = append(missing, "timeout")
	}
	switch policy.GetTenantScope() {
	case policyv1.TenantScope_TENANT_SCOPE_TENANT:
		m.Tenant = true
	case policyv1.TenantScope_TENANT_SCOPE_PLATFORM:
	default:
		missing = append(missing, "tenant_scope")
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("its policy does not say %s", strings.Join(missing, ", "))
	}
	for _, f := range []struct {
		message protoreflect.MessageDescriptor
		name    string
		target  *protowire.Number
	}{
		{desc.Input(), policy.GetTenantField(), &m.TenantField},
		{desc.Input(), policy.GetIdempotencyKeyField(), &m.KeyField},
		{desc.Output(), policy.GetEventIdField(), &m.EventIDField}, {desc.Input(), policy.GetResumeField(), &m.ResumeField},
		{desc.Input(), policy.GetNodeField(), &m.NodeField}, {desc.Input(), policy.GetReasonField(), &m.ReasonField},
	} {
		if f.name == "" {
			continue
		}
		field := f.message.Fields().ByName(protoreflect.Name(f.name))
		if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
			return nil, fmt.Errorf("its policy names the field %q, which is no string of %s", f.name, f.message.FullName())
		}
		*f.target = field.Number()
	}
	var err error
	if m.ETag, err = entityTag(desc, policy.GetEtag()); err != nil {
		return nil, err
	}
	if m.ResourcePath, m.PartField, err = resourcePath(desc.Input(), policy.GetResourceField(), policy.GetResourcePartField()); err != nil {
		return nil, err
	}
	m.NodeRights = policy.GetNodeRights()
	if rule, ok := proto.GetExtension(desc.Options(), annotations.E_Http).(*annotations.HttpRule); ok && rule != nil {
		m.Rules = append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...)
	}
	return m, nil
}

// entityTag reads the policy's entity tag.
func entityTag(desc protoreflect.MethodDescriptor, tag *policyv1.ETag) (*ETag, error) {
	if tag == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	if streamType(desc) != connect.StreamTypeUnary || idempotency(desc) != connect.IdempotencyNoSideEffects {
		return nil, errors.New("its policy has an etag, which only a unary method without side effects can have (idempotency_level = NO_SIDE_EFFECTS)")
	}
	if tag.GetExceptField() == "" {
		return &ETag{}, nil
	}
	field := desc.Output().Fields().ByName(protoreflect.Name(tag.GetExceptField()))
	if field == nil {
		return nil, fmt.Errorf("its policy's etag names the field %q, which is not one of %s", tag.GetExceptField(), desc.Output().FullName())
	}
	return &ETag{Except: field.Number()}, nil
}

// resourcePath finds the field that names a call's resources, and the one beside it that names
// their parts.
func resourcePath(message protoreflect.MessageDescriptor, name, part string) ([]frame.Step, protowire.Number, error) {
	if name == "" && part != "" {
		return nil, 0, fmt.Errorf("its policy has resource_part_field %q without resource_field", part)
	}
	if name == "" {
		return nil, 0, nil
	}
	var path []frame.Step
	names := strings.Split(name, ".")
	for i, step := range names {
		field := message.Fields().ByName(protoreflect.Name(step))
		last := i == len(names)-1
		switch {
		case field == nil, last && (field.Kind() != protoreflect.StringKind || field.IsList()):
			return nil, 0, fmt.Errorf("its policy names the field %q, which is no string of %s", name, message.FullName())
		case !last && (field.Message() == nil || field.IsMap()):
			return nil, 0, fmt.Errorf("its policy names the field %q: %s is no message", name, step)
		}
		path = append(path, frame.Step{Number: field.Number(), List: field.IsList()})
		if !last {
			message = field.Message()
		}
	}
	if part == "" {
		return path, 0, nil
	}
	field := message.Fields().ByName(protoreflect.Name(part))
	if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
		return nil, 0, fmt.Errorf("its policy names the field %q, which is no string of %s", part, message.FullName())
	}
	return path, field.Number(), nil
}

func streamType(desc protoreflect.MethodDescriptor) connect.StreamType {
	t := connect.StreamTypeUnary
	if desc.IsStreamingClient() {
		t |= connect.StreamTypeClient
	}
	if desc.IsStreamingServer() {
		t |= connect.StreamTypeServer
	}
	return t
}

func idempotency(desc protoreflect.MethodDescriptor) connect.IdempotencyLevel {
	options, ok := desc.Options().(*descriptorpb.MethodOptions)
	if !ok {
		return connect.IdempotencyUnknown
	}
	switch options.GetIdempotencyLevel() {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		return connect.IdempotencyNoSideEffects
	case descriptorpb.MethodOptions_IDEMPOTENT:
		return connect.IdempotencyIdempotent
	}
	return connect.IdempotencyUnknown
}
