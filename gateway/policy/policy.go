// Package policy is the gateway's method table, compiled from protobuf descriptors: the served methods, the rights that
// they require, the kinds of nodes that serve them, and their timeouts.
//
// A method without a headgate.policy.v1 option is not in the table, and is therefore not served (deny by default). A
// method with an incomplete policy is an error, with which the gateway does not start: there are no defaults.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/transcode"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// Method is a served method.
type Method struct {
	// Spec is the method's specification for Connect.
	Spec connect.Spec
	// Input and Output transcode its messages.
	Input, Output *transcode.Program
	// Right is the action of the right that the principal needs; "" for an anonymous method.
	Right string
	// Anonymous permits callers without a credential.
	Anonymous bool
	// Tenant reports whether a call is for one tenant (true) or for the platform (false).
	Tenant bool
	// Upstream is the kind of node that serves it.
	Upstream contextkit.Kind
	// Timeout bounds the duration of a call.
	Timeout time.Duration
	// Audit requires an audit record of every call.
	Audit bool
	// TenantField and KeyField are the request's fields with the tenant and the idempotency key; 0: none.
	TenantField, KeyField protowire.Number
	// ResourcePath is the path to the request's field with the resource, through messages that may be repeated; nil:
	// none.
	ResourcePath []frame.Step
	// PartField is the field with a part of the resource, in the same message as the resource; 0: none.
	PartField protowire.Number
	// NodeRights are the actions of the rights that the node itself checks.
	NodeRights []string
	// AllRights reports whether the node receives all rights of the principal.
	AllRights bool
	// EventIDField is the response's field with the position of a stream, and ResumeField the request's field with the
	// position after which the stream resumes; 0: none.
	EventIDField, ResumeField protowire.Number
	// NodeField is the request's field with the node that the call operates on; 0: none.
	NodeField protowire.Number
	// ReasonField is the request's field with the operator's reason; 0: none.
	ReasonField protowire.Number
	// AuditFields are the request's fields whose values are recorded in audit records.
	AuditFields map[protowire.Number]bool
	// Priority is the priority of calls under load shedding.
	Priority limit.Priority
	// ETag configures the entity tags of responses over HTTP; nil: none.
	ETag *ETag
	// Rules are the method's HTTP mappings.
	Rules []*annotations.HttpRule
}

// ETag configures the entity tag of a response.
type ETag struct {
	// Except is the response's field that the tag ignores; 0: none.
	Except protowire.Number
}

// Retriable reports whether a call may be retried although the node may have received it; keyed
// reports whether the request has an idempotency key.
func (m *Method) Retriable(keyed bool) bool {
	return keyed || m.Spec.IdempotencyLevel != connect.IdempotencyUnknown
}

// Table contains the served methods. It is immutable.
type Table struct {
	methods     []*Method
	byProcedure map[string]*Method
	services    []string

	upstreams, tenantUpstreams []contextkit.Kind
}

// Methods returns the methods in the descriptors' order.
func (t *Table) Methods() []*Method { return t.methods }

// Method returns the method of a procedure.
func (t *Table) Method(procedure string) (*Method, bool) {
	m, ok := t.byProcedure[procedure]
	return m, ok
}

// Names returns the names of services with a method in the table, for reflection.
func (t *Table) Names() []string { return t.services }

// Upstreams returns the kinds of nodes that serve the methods, sorted.
func (t *Table) Upstreams() []contextkit.Kind { return t.upstreams }

// TenantUpstreams returns the kinds of nodes that serve calls for one tenant, sorted.
func (t *Table) TenantUpstreams() []contextkit.Kind { return t.tenantUpstreams }

// Files is a set of descriptors, such as protoregistry.GlobalFiles.
type Files interface {
	RangeFiles(func(protoreflect.FileDescriptor) bool)
}

// Build compiles the table from descriptors.
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
	all, ofTenants := map[contextkit.Kind]bool{}, map[contextkit.Kind]bool{}
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

func newMethod(
	desc protoreflect.MethodDescriptor, policy *policyv1.Policy, compiler *transcode.Compiler,
) (*Method, error) {
	m := &Method{
		Spec: connect.Spec{
			StreamType:       streamType(desc),
			IdempotencyLevel: idempotency(desc),
			Schema:           desc,
			Procedure:        "/" + string(desc.Parent().FullName()) + "/" + string(desc.Name()),
		},
		Input:     compiler.Compile(desc.Input()),
		Output:    compiler.Compile(desc.Output()),
		Right:     policy.GetRight(),
		Timeout:   policy.GetTimeout().AsDuration(),
		Audit:     policy.GetAudit(),
		Anonymous: policy.GetAnonymous(),
		Priority:  limit.Normal,
	}
	switch policy.GetPriority() {
	case policyv1.Priority_PRIORITY_LOW:
		m.Priority = limit.Low
	case policyv1.Priority_PRIORITY_HIGH:
		m.Priority = limit.High
	}
	err := m.setRequired(policy)
	if err != nil {
		return nil, err
	}
	if err := m.setStringFields(desc, policy); err != nil {
		return nil, err
	}
	if m.ETag, err = entityTag(desc, policy.GetEtag()); err != nil {
		return nil, err
	}
	if m.ResourcePath, m.PartField, err = resourcePath(
		desc.Input(), policy.GetResourceField(), policy.GetResourcePartField(),
	); err != nil {
		return nil, err
	}
	if m.AuditFields, err = auditFields(desc.Input(), policy); err != nil {
		return nil, err
	}
	m.NodeRights, m.AllRights = policy.GetNodeRights(), policy.GetAllRights()
	if rule, ok := proto.GetExtension(desc.Options(), annotations.E_Http).(*annotations.HttpRule); ok && rule != nil {
		m.Rules = append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...)
	}
	return m, nil
}

// setRequired sets what each policy must have: a right, unless the method is anonymous, an upstream, a timeout and a
// tenant scope.
func (m *Method) setRequired(policy *policyv1.Policy) error {
	var missing []string
	if m.Anonymous && (m.Right != "" || policy.GetTenantScope() != policyv1.TenantScope_TENANT_SCOPE_PLATFORM) {
		return errors.New("its policy is anonymous, but requires a right or a tenant")
	}
	if m.Right == "" && !m.Anonymous {
		missing = append(missing, "right")
	}
	var err error
	if policy.GetUpstream() == "" {
		missing = append(missing, "upstream")
	} else if m.Upstream, err = contextkit.ParseKind(policy.GetUpstream()); err != nil {
		return fmt.Errorf("its policy's upstream: %w", err)
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
		return fmt.Errorf("its policy lacks %s", strings.Join(missing, ", "))
	}
	return nil
}

// setStringFields sets the numbers of the string fields that the policy names.
func (m *Method) setStringFields(desc protoreflect.MethodDescriptor, policy *policyv1.Policy) error {
	for _, f := range []struct {
		message protoreflect.MessageDescriptor
		name    string
		target  *protowire.Number
	}{
		{desc.Input(), policy.GetTenantField(), &m.TenantField},
		{desc.Input(), policy.GetIdempotencyKeyField(), &m.KeyField},
		{desc.Output(), policy.GetEventIdField(), &m.EventIDField},
		{desc.Input(), policy.GetResumeField(), &m.ResumeField},
		{desc.Input(), policy.GetNodeField(), &m.NodeField},
		{desc.Input(), policy.GetReasonField(), &m.ReasonField},
	} {
		if f.name == "" {
			continue
		}
		field := f.message.Fields().ByName(protoreflect.Name(f.name))
		if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
			return fmt.Errorf("its policy names the field %q, which is not a string field of %s", f.name,
				f.message.FullName())
		}
		*f.target = field.Number()
	}
	return nil
}

// auditFields returns the fields of a policy's audit_fields.
func auditFields(input protoreflect.MessageDescriptor, policy *policyv1.Policy) (map[protowire.Number]bool, error) {
	if len(policy.GetAuditFields()) == 0 {
		return nil, nil
	}
	if !policy.GetAudit() {
		return nil, errors.New("its policy has audit_fields, but no audit")
	}
	out := map[protowire.Number]bool{}
	for _, name := range policy.GetAuditFields() {
		field := input.Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return nil, fmt.Errorf("its policy names the field %q, which %s does not have", name, input.FullName())
		}
		out[field.Number()] = true
	}
	return out, nil
}

// entityTag compiles the policy's entity tag.
func entityTag(desc protoreflect.MethodDescriptor, tag *policyv1.ETag) (*ETag, error) {
	if tag == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	if streamType(desc) != connect.StreamTypeUnary || idempotency(desc) != connect.IdempotencyNoSideEffects {
		return nil, errors.New(
			"its policy has an etag, which only a unary method without side effects can have (idempotency_level = " +
				"NO_SIDE_EFFECTS)",
		)
	}
	if tag.GetExceptField() == "" {
		return &ETag{}, nil
	}
	field := desc.Output().Fields().ByName(protoreflect.Name(tag.GetExceptField()))
	if field == nil {
		return nil, fmt.Errorf("its policy's etag names the field %q, which is not one of %s", tag.GetExceptField(),
			desc.Output().FullName())
	}
	return &ETag{Except: field.Number()}, nil
}

// resourcePath returns the path to the field with a call's resources, and the field with their parts.
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
			return nil, 0, fmt.Errorf("its policy names the field %q, which is not a string field of %s", name,
				message.FullName())
		case !last && (field.Message() == nil || field.IsMap()):
			return nil, 0, fmt.Errorf("its policy names the field %q: %s is not a message", name, step)
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
		return nil, 0, fmt.Errorf("its policy names the field %q, which is not a string field of %s", part,
			message.FullName())
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
