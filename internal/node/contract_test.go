package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
)

// contractModel has what each method can return: rows, a view that fails, and workflows that are stuck.
const contractModel = `
model: contract
aggregates:
  note:
    commands:
      put:
        payload: {type: object, required: [text], properties: {text: {type: string}}}
        emit: [{event: put, data: {text: cmd.text, zero: "0"}}]
    evolve:
      put: {text: event.text}
views:
  notes:
    key: meta.aggregate_id
    columns: {text: string}
    on:
      note.put: {upsert: {text: event.text}}
  failing:
    key: meta.aggregate_id
    columns: {share: int}
    on:
      note.put: {upsert: {share: 100 / (0 * row.share)}}
workflows:
  tell:
    on: note.put
    steps:
      - {name: tell, retry: {attempts: 1}, webhook: {url: "'http://127.0.0.1:1/' + event.text", body: {}}}
`

// tenantRequests has a valid request of each tenant-scoped method. Its texts begin with the tenant's
// name: an answer with another tenant's name shows another tenant's data.
func tenantRequests(tenant string) map[protoreflect.FullName]proto.Message {
	put := &aggregatev1.BatchCommand{
		AggregateType: "note",
		AggregateId:   tenant + "-1",
		Command:       "put",
		Payload:       text(tenant),
	}
	instance := tenant + "-1=1"
	return map[protoreflect.FullName]proto.Message{
		"aggregate.gateway.v1.CommandService.Submit": &aggregatev1.SubmitRequest{
			TenantId:      tenant,
			AggregateType: "note",
			AggregateId:   tenant + "-1",
			Command:       "put",
			Payload:       text(tenant),
		},
		"aggregate.gateway.v1.CommandService.SubmitBatch": &aggregatev1.SubmitBatchRequest{
			TenantId: tenant,
			Commands: []*aggregatev1.BatchCommand{put},
		},
		"aggregate.gateway.v1.CommandService.GetAggregate": &aggregatev1.GetAggregateRequest{
			TenantId:      tenant,
			AggregateType: "note",
			AggregateId:   tenant + "-1",
		},
		"aggregate.gateway.v1.EventService.ListEvents": &aggregatev1.ListEventsRequest{
			TenantId:      tenant,
			AggregateType: "note",
			AggregateId:   tenant + "-1",
		},
		"aggregate.gateway.v1.EventService.ReadEvents": &aggregatev1.ReadEventsRequest{TenantId: tenant},
		"aggregate.gateway.v1.EventService.Subscribe": &aggregatev1.SubscribeRequest{
			TenantId:      tenant,
			FromBeginning: true,
		},
		"aggregate.gateway.v1.EventService.ListAggregates": &aggregatev1.ListAggregatesRequest{
			TenantId:      tenant,
			AggregateType: "note",
		},
		"projection.gateway.v1.QueryService.Query": &projectionv1.QueryRequest{TenantId: tenant, View: "notes"},
		"projection.gateway.v1.QueryService.Get": &projectionv1.GetRequest{
			TenantId: tenant,
			View:     "notes",
			Key:      tenant + "-1",
		},
		"projection.gateway.v1.QueryService.Watch":     &projectionv1.WatchRequest{TenantId: tenant, View: "notes"},
		"projection.gateway.v1.QueryService.ListViews": &projectionv1.ListViewsRequest{TenantId: tenant},
		"projection.gateway.v1.QueryService.FindAggregates": &projectionv1.FindAggregatesRequest{
			TenantId:      tenant,
			AggregateType: "note",
		},
		"runner.admin.v1.RunnerAdmin.PauseTenant":  &adminv1.PauseTenantRequest{TenantId: tenant},
		"runner.admin.v1.RunnerAdmin.ResumeTenant": &adminv1.ResumeTenantRequest{TenantId: tenant},
		"runner.admin.v1.RunnerAdmin.GetWorkflow": &adminv1.GetWorkflowRequest{
			TenantId:   tenant,
			Workflow:   "tell",
			InstanceId: instance,
		},
		"runner.admin.v1.RunnerAdmin.ListWorkflows":   &adminv1.ListWorkflowsRequest{TenantId: tenant},
		"runner.admin.v1.RunnerAdmin.ListDeadLetters": &adminv1.ListDeadLettersRequest{TenantId: tenant},
		"runner.admin.v1.RunnerAdmin.ReplayDeadLetters": &adminv1.ReplayDeadLettersRequest{
			TenantId: tenant,
			Ids:      []int64{1},
		},
		"runner.admin.v1.RunnerAdmin.DiscardDeadLetters": &adminv1.DiscardDeadLettersRequest{
			TenantId: tenant,
			Ids:      []int64{1},
			Reason:   "r",
		},
		"runner.admin.v1.RunnerAdmin.RetryWorkflow": &adminv1.RetryWorkflowRequest{
			TenantId:   tenant,
			Workflow:   "tell",
			InstanceId: instance,
			Reason:     "r",
		},
		"runner.admin.v1.RunnerAdmin.SkipStep": &adminv1.SkipStepRequest{
			TenantId:   tenant,
			Workflow:   "tell",
			InstanceId: instance,
			Step:       "tell",
			Reason:     "r",
		},
		"runner.admin.v1.RunnerAdmin.CancelWorkflow": &adminv1.CancelWorkflowRequest{
			TenantId:   tenant,
			Workflow:   "tell",
			InstanceId: instance,
			Reason:     "r",
		},
		"runner.admin.v1.RunnerAdmin.CompensateWorkflow": &adminv1.CompensateWorkflowRequest{
			TenantId:   tenant,
			Workflow:   "tell",
			InstanceId: instance,
			Reason:     "r",
		},
		"control.v1.MetricsService.QueryTenantSeries": &controlv1.QueryTenantSeriesRequest{TenantId: tenant},
		"control.v1.TimelineService.ListTimelines":    &controlv1.ListTimelinesRequest{TenantId: tenant, Limit: 100},
		"control.v1.TimelineService.GetTimeline": &controlv1.GetTimelineRequest{
			TenantId: tenant,
			Id:       tenant + "-correlation",
		},
		"control.v1.RevocationService.RevokeTenantToken": &controlv1.RevokeTenantTokenRequest{
			TenantId: tenant,
			Issuer:   "https://issuer.example",
			TokenId:  tenant + "-token",
			Reason:   "r",
		},
		"control.v1.RevocationService.RevokeTenantSubject": &controlv1.RevokeTenantSubjectRequest{
			TenantId: tenant,
			Subject:  tenant + "-subject",
			Reason:   "r",
		},
		"control.v1.RevocationService.ListTenantRevocations": &controlv1.ListTenantRevocationsRequest{TenantId: tenant},
		"control.v1.RevocationService.WithdrawTenantRevocation": &controlv1.WithdrawTenantRevocationRequest{
			TenantId: tenant,
			Id:       strings.Repeat("0", 32),
			Reason:   "r",
		},
		"control.v1.ApiKeyService.CreateTenantApiKey": &controlv1.CreateTenantApiKeyRequest{
			TenantId:    tenant,
			DisplayName: tenant + "-key",
			Rights:      []string{"query.read"},
		},
		"control.v1.ApiKeyService.ListTenantApiKeys": &controlv1.ListTenantApiKeysRequest{TenantId: tenant},
		"control.v1.ApiKeyService.RevokeTenantApiKey": &controlv1.RevokeTenantApiKeyRequest{
			TenantId: tenant,
			Id:       "c." + strings.Repeat("a", 26),
			Reason:   "r",
		},
	}
}

func text(value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"text": structpb.NewStringValue(value)}}
}

// withTenant returns req with another tenant in its tenant field, or with none.
func withTenant(m protoreflect.MethodDescriptor, req proto.Message, tenant string) proto.Message {
	req = proto.Clone(req)
	field := m.Input().Fields().ByName(protoreflect.Name(policyOf(m).GetTenantField()))
	if tenant == "" {
		req.ProtoReflect().Clear(field)
	} else {
		req.ProtoReflect().Set(field, protoreflect.ValueOfString(tenant))
	}
	return req
}

func startContract(t *testing.T) *devPlatform {
	t.Helper()
	path := filepath.Join(t.TempDir(), "contract.yaml")
	if err := os.WriteFile(path, []byte(contractModel), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDev(t, path)
}

// Both the gateway and the node reject a call whose tenant field, header and credential disagree, that
// names no tenant, and that names one that is not served: for each method that the descriptors scope to a
// tenant.
func TestContract_EveryTenantScopedMethodChecksItsTenant(t *testing.T) {
	d := startContract(t)
	acme, both, operator := d.token(t, "acme"), d.token(t, "acme,globex"), d.token(t, "*")
	requests, tested := tenantRequests("acme"), 0
	for _, m := range policedMethods() {
		if policyOf(m).GetTenantScope() != policyv1.TenantScope_TENANT_SCOPE_TENANT {
			continue
		}
		tested++
		req, ok := requests[m.FullName()]
		if !ok {
			t.Errorf("%s is scoped to a tenant: add a valid request to tenantRequests", m.FullName())
			continue
		}
		node := policyOf(m).GetUpstream()
		foreign, absent, unserved := withTenant(m, req,
			"globex"), withTenant(m, req, ""), withTenant(m, req, "unserved")
		for _, c := range []struct {
			what, at string
			req      proto.Message
			header   []string
			want     codes.Code
		}{
			{"field of a foreign tenant", "gateway", foreign, acme, codes.PermissionDenied},
			{
				"header of a foreign tenant", "gateway", absent, append([]string{"x-tenant-id", "globex"}, acme...),
				codes.PermissionDenied,
			},
			{
				"field and header disagree", "gateway", foreign, append([]string{"x-tenant-id", "acme"}, both...),
				codes.PermissionDenied,
			},
			{
				"field and header disagree for an operator", "gateway", foreign,
				append([]string{"x-tenant-id", "acme"}, operator...), codes.PermissionDenied,
			},
			{"no tenant", "gateway", absent, both, codes.InvalidArgument},
			{"tenant that is not served", "gateway", unserved, operator, codes.NotFound},
			{"field and header disagree", node, foreign, []string{"x-tenant-id", "acme"}, codes.PermissionDenied},
			{"no header", node, req, nil, codes.InvalidArgument},
			{"two headers", node, req, []string{"x-tenant-id", "acme", "x-tenant-id", "acme"}, codes.InvalidArgument},
			{"tenant that is not served", node, unserved, []string{"x-tenant-id", "unserved"}, codes.NotFound},
		} {
			_, err := d.call(t, c.at, m, c.req, c.header...)
			if status.Code(err) != c.want {
				t.Errorf("%s at the %s, %s: %v, want %v", m.FullName(), c.at, c.what, err, c.want)
			}
		}
	}
	if tested != len(requests) {
		t.Errorf("%d methods are scoped to a tenant, %d requests are listed", tested, len(requests))
	}
}
