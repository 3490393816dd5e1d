package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/credentials"
)

// change is a call of a method that changes something.
type change struct {
	method protoreflect.FullName
	req    func() proto.Message
	code   codes.Code   // of the first call
	again  []codes.Code // one of which the same call returns after it
}

// unaudited are the changing methods whose effects are the tenants' own records: events.
var unaudited = map[protoreflect.FullName]bool{
	"aggregate.gateway.v1.CommandService.Submit":      true,
	"aggregate.gateway.v1.CommandService.SubmitBatch": true,
}

// changed are the changes that the records of the first calls state.
var changed = map[protoreflect.FullName]string{
	"control.v1.TenantService.CreateTenant":       "",
	"control.v1.TenantService.SuspendTenant":      "suspended: false to true, reason:  to r",
	"control.v1.TenantService.ResumeTenant":       "suspended: true to false, reason: r to ",
	"control.v1.TenantService.SetQuota":           "quota.rate:  to 7, quota.burst:  to 7",
	"control.v1.TenantService.SetStorageQuota":    "storage_quota.events:  to 7",
	"control.v1.PlacementService.AssignPlacement": "node:  to aggregate-1",
	"control.v1.PlacementService.RemovePlacement": "node: aggregate-1 to ",
	"control.v1.FleetService.DrainNode":           "drained: false to true",
	"control.v1.FleetService.ResumeNode":          "drained: true to false",
}

func changesText(record *controlv1.AuditRecord) string {
	var out []string
	for _, c := range record.GetChanges() {
		out = append(out, c.GetName()+": "+c.GetBefore()+" to "+c.GetAfter())
	}
	return strings.Join(out, ", ")
}

// checkRequest checks that a record has the fields that the request sets, with the values of those alone that the
// method's policy lists.
func checkRequest(
	t *testing.T, m protoreflect.MethodDescriptor, req proto.Message, record *controlv1.AuditRecord,
) {
	t.Helper()
	recorded := map[string]bool{}
	for _, field := range record.GetRequest() {
		name, _, _ := strings.Cut(field.GetName(), ".")
		recorded[name] = true
		if listed := slices.Contains(policyOf(m).GetAuditFields(), name); (field.Value != nil) != listed ||
			field.GetBytes() == 0 {
			t.Errorf("%s: listed %v: %v", m.FullName(), listed, field)
		}
	}
	req.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !recorded[string(field.Name())] {
			t.Errorf("%s: the record lacks the request's %s: %v", m.FullName(), field.Name(), record.GetRequest())
		}
		return true
	})
}

// Every method that changes something leaves one audit record per call, regardless of the call's outcome. The
// idempotent ones among them return the same answer when they are called again, or report that the work is done.
func TestContract_EveryChangeIsAuditedAndRepeatable(t *testing.T) {
	if testing.Short() {
		t.Skip("one client calls every method; other tests cover this under the race detector")
	}
	d := startContract(t)
	d.announceNode(t, "projection-2", d.projection)
	const notes = 5
	for n := range notes {
		d.note(t, "acme", n+1)
	}
	instances, letters, event := d.stuck(t, "acme", notes), d.letters(t, "acme", notes), d.failedAt(t, "acme")
	operator, acme := d.token(t, "*"), d.token(t, "acme")
	plan := &controlv1.PlanMoveRequest{TenantId: "globex", Kind: "projection", Target: "projection-2"}
	eventually(t, "control lists the second projection node", func() bool {
		res, err := d.call(t, "gateway", method(t, "control.v1.PlacementService.PlanMove"), plan, operator...)
		return err == nil && len(res.(*controlv1.PlanMoveResponse).GetObstacles()) == 0
	})
	var move, key string
	is := func(req proto.Message) func() proto.Message { return func() proto.Message { return req } }
	changes := []change{
		{
			"control.v1.TenantService.CreateTenant", is(&controlv1.CreateTenantRequest{TenantId: "hooli"}), codes.OK,
			[]codes.Code{codes.AlreadyExists},
		},
		{
			"control.v1.TenantService.SuspendTenant",
			is(&controlv1.SuspendTenantRequest{TenantId: "hooli", Reason: "r"}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.TenantService.ResumeTenant", is(&controlv1.ResumeTenantRequest{TenantId: "hooli"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.TenantService.SetQuota",
			is(&controlv1.SetQuotaRequest{TenantId: "hooli", Quota: &controlv1.Quota{Rate: 7, Burst: 7}}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.TenantService.SetStorageQuota",
			is(&controlv1.SetStorageQuotaRequest{TenantId: "hooli", Quota: &controlv1.StorageQuota{Events: 7}}),
			codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.PlacementService.AssignPlacement",
			is(&controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "aggregate", Node: "aggregate-1"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.PlacementService.RemovePlacement",
			is(&controlv1.RemovePlacementRequest{TenantId: "acme", Kind: "aggregate"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.PlacementService.StartMove",
			is(&controlv1.StartMoveRequest{TenantId: "globex", Kind: "projection", Target: "projection-2"}), codes.OK,
			[]codes.Code{codes.FailedPrecondition},
		},
		{
			"control.v1.PlacementService.AbortMove",
			func() proto.Message { return &controlv1.AbortMoveRequest{Id: move} }, codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.RevokeToken",
			is(&controlv1.RevokeTokenRequest{Issuer: "https://issuer.example", TokenId: "1", Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.RevokeSubject",
			is(&controlv1.RevokeSubjectRequest{Subject: "mallory", Reason: "r"}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.RevokeIssuer",
			is(&controlv1.RevokeIssuerRequest{Issuer: "https://issuer.example", Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.WithdrawRevocation",
			is(&controlv1.WithdrawRevocationRequest{
				Id:     credentials.Revocation{Subject: "mallory"}.ID(),
				Reason: "r",
			}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.RevokeTenantToken",
			is(&controlv1.RevokeTenantTokenRequest{Issuer: "https://issuer.example", TokenId: "1", Reason: "r"}),
			codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.RevokeTenantSubject",
			is(&controlv1.RevokeTenantSubjectRequest{Subject: "mallory", Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.RevocationService.WithdrawTenantRevocation",
			is(&controlv1.WithdrawTenantRevocationRequest{
				Id:     credentials.Revocation{Tenant: "acme", Subject: "mallory"}.ID(),
				Reason: "r",
			}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.ApiKeyService.CreateApiKey", is(&controlv1.CreateApiKeyRequest{
				DisplayName: "all",
				Tenants:     []string{"*"},
				Rights:      []string{"query.read"},
			}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.ApiKeyService.RevokeApiKey",
			func() proto.Message { return &controlv1.RevokeApiKeyRequest{Id: key, Reason: "r"} }, codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.ApiKeyService.CreateTenantApiKey",
			is(&controlv1.CreateTenantApiKeyRequest{DisplayName: "acme", Rights: []string{"query.read"}}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.ApiKeyService.RevokeTenantApiKey",
			func() proto.Message { return &controlv1.RevokeTenantApiKeyRequest{Id: key, Reason: "r"} }, codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.JournalService.AcceptLoss", is(&controlv1.AcceptLossRequest{Reason: "r"}),
			codes.FailedPrecondition, []codes.Code{codes.FailedPrecondition},
		},
		{
			"control.v1.JournalService.DeclareNoEvent",
			is(&controlv1.DeclareNoEventRequest{TenantId: "acme", Reference: "x", Reason: "r"}), codes.InvalidArgument,
			[]codes.Code{codes.InvalidArgument},
		},
		{
			"control.v1.JournalService.RevokeNoEvent",
			is(&controlv1.RevokeNoEventRequest{TenantId: "acme", Reference: "x", Reason: "r"}), codes.InvalidArgument,
			[]codes.Code{codes.InvalidArgument},
		},
		{"control.v1.ViewService.SkipEvent", is(&controlv1.SkipEventRequest{
			TenantId: "acme",
			View:     "failing",
			EventId:  event,
			Reason:   "r",
		}), codes.OK, []codes.Code{codes.OK}},
		{"control.v1.ViewService.RevokeSkip", is(&controlv1.RevokeSkipRequest{
			TenantId: "acme",
			View:     "failing",
			EventId:  event,
			Reason:   "r",
		}), codes.OK, []codes.Code{codes.NotFound}},
		{
			"control.v1.ModelService.ApplyModel",
			is(&controlv1.ApplyModelRequest{Text: contractModel, ExpectedRevision: "x"}), codes.FailedPrecondition,
			[]codes.Code{codes.FailedPrecondition},
		},
		{
			"runner.admin.v1.RunnerAdmin.PauseTenant", is(&adminv1.PauseTenantRequest{TenantId: "acme"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.ResumeTenant", is(&adminv1.ResumeTenantRequest{TenantId: "acme"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.CancelWorkflow",
			is(&adminv1.CancelWorkflowRequest{Workflow: "tell", InstanceId: instances[0], Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{"runner.admin.v1.RunnerAdmin.SkipStep", is(&adminv1.SkipStepRequest{
			Workflow:   "tell",
			InstanceId: instances[1],
			Step:       "tell",
			Reason:     "r",
		}), codes.OK, []codes.Code{codes.OK}},
		{
			"runner.admin.v1.RunnerAdmin.CompensateWorkflow",
			is(&adminv1.CompensateWorkflowRequest{Workflow: "tell", InstanceId: instances[2], Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.RetryWorkflow",
			is(&adminv1.RetryWorkflowRequest{Workflow: "tell", InstanceId: instances[3], Reason: "r"}), codes.OK,
			[]codes.Code{codes.OK, codes.FailedPrecondition},
		},
		{
			"runner.admin.v1.RunnerAdmin.ReplayDeadLetters",
			is(&adminv1.ReplayDeadLettersRequest{Ids: letters[:1], Reason: "r"}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.DiscardDeadLetters",
			is(&adminv1.DiscardDeadLettersRequest{Ids: letters[:1], Reason: "r"}), codes.OK, []codes.Code{codes.OK},
		},
		{
			"control.v1.FleetService.DrainNode",
			is(&controlv1.DrainNodeRequest{Node: "aggregate-1", Reason: "r", Force: true}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"control.v1.FleetService.ResumeNode", is(&controlv1.ResumeNodeRequest{Node: "aggregate-1"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.Drain", is(&adminv1.DrainRequest{Node: "runner-1"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.Resume", is(&adminv1.ResumeRequest{Node: "runner-1"}), codes.OK,
			[]codes.Code{codes.OK},
		},
		{
			"runner.admin.v1.RunnerAdmin.Reload", is(&adminv1.ReloadRequest{Node: "runner-1"}), codes.OK,
			[]codes.Code{codes.OK},
		},
	}
	d.checkNodes(t, operator)
	listed := map[protoreflect.FullName]bool{}
	for _, c := range changes {
		listed[c.method] = true
		m := method(t, c.method)
		credential, tenant := operator, ""
		if policyOf(m).GetTenantField() != "" {
			credential, tenant = acme, "acme" // an operator's calls for a tenant are recorded in any case
		}
		for n, want := range [][]codes.Code{{c.code}, c.again} {
			correlation := fmt.Sprintf("%s-%d", m.FullName(), n)
			res, err := d.call(t, "gateway", m, c.req(),
				append([]string{"x-correlation-id", correlation}, credential...)...)
			if !slices.Contains(want, status.Code(err)) {
				t.Errorf("%s, call %d: %v, want %v", c.method, n+1, err, want)
			}
			switch res := res.(type) {
			case *controlv1.StartMoveResponse:
				move = res.GetMove().GetId()
			case *controlv1.CreateApiKeyResponse:
				key = res.GetApiKey().GetId()
			case *controlv1.CreateTenantApiKeyResponse:
				key = res.GetApiKey().GetId()
			}
			record := d.recorded(t, correlation, operator)
			if record.GetProcedure() != procedureOf(m) || record.GetTenantId() != tenant ||
				record.GetDecision() != "allowed" || record.GetPrincipal() == "" {
				t.Errorf("%s, call %d: the record is %v", c.method, n+1, record)
			}
			checkRequest(t, m, c.req(), record)
			want := ""
			if n == 0 {
				want = changed[c.method]
			}
			if got := changesText(record); got != want {
				t.Errorf("%s, call %d: the record's changes are %q, want %q", c.method, n+1, got, want)
			}
		}
	}
	for _, m := range policedMethods() {
		switch {
		case isRead(m) || unaudited[m.FullName()]:
		case !policyOf(m).GetAudit():
			t.Errorf("%s changes something and is not audited", m.FullName())
		case !listed[m.FullName()]:
			t.Errorf("%s changes state: add calls of it", m.FullName())
		}
	}
}

// recorded waits until a call's audit record is stored, and returns it. There is one record per call.
func (d *devPlatform) recorded(t *testing.T, correlation string, operator []string) *controlv1.AuditRecord {
	t.Helper()
	var records []*controlv1.AuditRecord
	eventually(t, "the audit record of "+correlation, func() bool {
		res := d.mustCall(t, "gateway", method(t, "control.v1.AuditService.QueryAudit"),
			&controlv1.QueryAuditRequest{Id: correlation}, operator...)
		records = res.(*controlv1.QueryAuditResponse).GetRecords()
		return len(records) > 0
	})
	if len(records) != 1 {
		t.Errorf("%s has %d records", correlation, len(records))
	}
	return records[0]
}
