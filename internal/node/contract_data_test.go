package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
)

// eventually waits until condition holds; it is evaluated again every few milliseconds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(time.Minute)
	for !condition() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("timeout: %s", what)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}

// note stores the note TENANT-n of a tenant and returns the id of its event. Its workflow gets stuck.
func (d *devPlatform) note(t *testing.T, tenant string, n int, header ...string) string {
	t.Helper()
	res := d.mustCall(t, "gateway", method(t, "aggregate.gateway.v1.CommandService.Submit"), &aggregatev1.SubmitRequest{
		AggregateType: "note",
		AggregateId:   fmt.Sprintf("%s-%d", tenant, n),
		Command:       "put",
		Payload:       text(tenant),
	}, append(header, d.token(t, tenant)...)...)
	return res.(*aggregatev1.SubmitResponse).GetEvents()[0].GetId()
}

// stuck waits until a tenant has a number of stuck workflow instances, and returns their ids.
func (d *devPlatform) stuck(t *testing.T, tenant string, want int) []string {
	t.Helper()
	var ids []string
	list := &adminv1.ListWorkflowsRequest{State: adminv1.WorkflowState_WORKFLOW_STATE_STUCK}
	eventually(t, fmt.Sprintf("%d workflow instances of %s are stuck", want, tenant), func() bool {
		ids = nil
		res := d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.ListWorkflows"), list,
			d.token(t, tenant)...)
		for _, i := range res.(*adminv1.ListWorkflowsResponse).GetInstances() {
			ids = append(ids, i.GetInstanceId())
		}
		return len(ids) == want
	})
	return ids
}

// failedAt waits until a tenant's view "failing" is announced to fail, and returns the id of the event.
func (d *devPlatform) failedAt(t *testing.T, tenant string) string {
	t.Helper()
	var id string
	eventually(t, "the view fails", func() bool {
		res := d.mustCall(t, "gateway", method(t, "projection.gateway.v1.QueryService.ListViews"),
			&projectionv1.ListViewsRequest{}, d.token(t, tenant)...)
		for _, v := range res.(*projectionv1.ListViewsResponse).GetViews() {
			if v.GetName() == "failing" {
				id = v.GetFailure().GetEventId()
			}
		}
		return id != ""
	})
	eventually(t, "the fleet lists the failing view", func() bool {
		res := d.mustCall(t, "gateway", method(t, "control.v1.FleetService.GetFleet"), &controlv1.GetFleetRequest{},
			d.token(t, "*")...)
		return strings.Contains(protojson.Format(res), id)
	})
	return id
}

// letters waits until a tenant has a number of dead letters, and returns their ids.
func (d *devPlatform) letters(t *testing.T, tenant string, want int) []int64 {
	t.Helper()
	var ids []int64
	eventually(t, "the dead letters of "+tenant, func() bool {
		ids = nil
		res := d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.ListDeadLetters"),
			&adminv1.ListDeadLettersRequest{}, d.token(t, tenant)...)
		for _, l := range res.(*adminv1.ListDeadLettersResponse).GetLetters() {
			ids = append(ids, l.GetId())
		}
		return len(ids) == want
	})
	return ids
}

// hasField reports whether a method's request has a field.
func hasField(m protoreflect.MethodDescriptor, name protoreflect.Name) bool {
	return m.Input().Fields().ByName(name) != nil
}

// isRead reports whether a method has no side effects.
func isRead(m protoreflect.MethodDescriptor) bool {
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// Every read with a tenant_id returns that tenant's data alone, even for a caller that may read all tenants,
// and nothing of a resource that another tenant has under the same name.
func TestContract_EveryReadObeysItsTenantID(t *testing.T) {
	if testing.Short() {
		t.Skip("one client calls every method; other tests cover this under the race detector")
	}
	d := startContract(t)
	const notes = 2
	d.announceNode(t, "projection-2", d.projection)
	operator := d.token(t, "*")
	instances, last := map[string]string{}, map[string]int64{} // last has the sequences of the tenants' last events
	for i, tenant := range []string{"acme", "globex"} {
		for n := range notes + i {
			d.note(t, tenant, n+1, "x-correlation-id", tenant+"-correlation")
		}
		instances[tenant], last[tenant] = d.stuck(t, tenant, notes+i)[0], last["acme"]+int64(notes+i)
		d.letters(t, tenant, notes+i)
		d.mustCall(t, "gateway", method(t, "control.v1.ViewService.SkipEvent"), &controlv1.SkipEventRequest{
			TenantId: tenant,
			View:     "failing",
			EventId:  d.failedAt(t, tenant),
			Reason:   "a test",
		}, operator...)
		d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.ResumeTenant"), &adminv1.ResumeTenantRequest{},
			d.token(t, tenant)...)
		for n := range 2 {
			for _, name := range []protoreflect.FullName{
				"control.v1.RevocationService.RevokeTenantSubject", "control.v1.ApiKeyService.CreateTenantApiKey",
			} {
				req := tenantRequests(tenant)[name]
				if revoke, ok := req.(*controlv1.RevokeTenantSubjectRequest); ok && n > 0 {
					revoke.Subject += "-2"
				}
				d.mustCall(t, "gateway", method(t, name), req, d.token(t, tenant)...)
			}
		}
	}
	request := func(m protoreflect.MethodDescriptor, tenant string) proto.Message {
		switch m.FullName() {
		case "control.v1.AuditService.QueryAudit":
			return &controlv1.QueryAuditRequest{TenantId: tenant}
		case "control.v1.AuditService.FollowAudit":
			return &controlv1.FollowAuditRequest{TenantId: tenant}
		case "control.v1.PlacementService.PlanMove":
			return &controlv1.PlanMoveRequest{TenantId: tenant, Kind: "projection", Target: "projection-2"}
		case "control.v1.MetricsService.QuerySeries":
			return &controlv1.QuerySeriesRequest{TenantId: tenant}
		case "control.v1.FleetService.GetNode":
			return &controlv1.GetNodeRequest{Node: "aggregate-1"}
		case "control.v1.ViewService.ListSkips":
			return &controlv1.ListSkipsRequest{TenantId: tenant}
		case "runner.admin.v1.RunnerAdmin.GetWorkflow":
			return &adminv1.GetWorkflowRequest{TenantId: tenant, Workflow: "tell", InstanceId: instances[tenant]}
		}
		return tenantRequests(tenant)[m.FullName()]
	}
	other := map[string]string{"acme": "globex", "globex": "acme"}
	for _, m := range policedMethods() {
		if !isRead(m) || !hasField(m, "tenant_id") {
			continue
		}
		for _, tenant := range []string{"acme", "globex"} {
			req := request(m, tenant)
			if req == nil {
				t.Errorf("%s has a tenant_id: add a request that shows whether it is obeyed", m.FullName())
				continue
			}
			var text string
			eventually(t, fmt.Sprintf("%s returns data of %s", m.FullName(), tenant), func() bool {
				res, err := d.read(t, m, req, operator)
				if err != nil {
					t.Fatalf("%s of %s: %v", m.FullName(), tenant, err)
				}
				text = protojson.Format(res)
				if plan, ok := res.(*controlv1.PlanMoveResponse); ok {
					return plan.GetEvents() == last[tenant]
				}
				return strings.Contains(text, tenant)
			})
			if strings.Contains(text, other[tenant]) {
				t.Errorf("%s with tenant_id %s: %s", m.FullName(), tenant, text)
			}
			if policyOf(m).GetTenantField() == "" {
				continue
			}
			if res, err := d.call(t, "gateway", m, withTenant(m, req, other[tenant]), operator...); err == nil &&
				strings.Contains(protojson.Format(res), tenant) {
				t.Errorf("%s of %s with tenant_id %s: %v", m.FullName(), tenant, other[tenant], res)
			}
		}
	}
	t.Run("page tokens", func(t *testing.T) {
		d.note(t, "acme", 1) // every list has two items
		checkPageTokens(t, d, request)
	})
}

// read calls a read. While FollowAudit waits, calls of both tenants are recorded.
func (d *devPlatform) read(
	t *testing.T, m protoreflect.MethodDescriptor, req proto.Message, header []string,
) (res proto.Message, err error) {
	t.Helper()
	if m.Name() != "FollowAudit" {
		return d.call(t, "gateway", m, req, header...)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err = d.call(t, "gateway", m, req, header...)
	}()
	for {
		for _, tenant := range []string{"globex", "acme", "globex"} {
			d.mustCall(t, "gateway", method(t, "runner.admin.v1.RunnerAdmin.ResumeTenant"),
				&adminv1.ResumeTenantRequest{}, d.token(t, tenant)...)
		}
		select {
		case <-done:
			return res, err
		default:
		}
	}
}
