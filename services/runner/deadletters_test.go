package runner_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
)

func TestDeadLetters_AreListedAndReplayedInOrder(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.wallets(t, "globex")
	frozen := func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit") {
			return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
		}
		return nil
	}
	f.gate.set(frozen)
	list := func(tenant, cause, token string, size int32) (*adminv1.ListDeadLettersResponse, string) {
		t.Helper()
		res, err := f.admin.ListDeadLetters(as(t, tenant),
			&adminv1.ListDeadLettersRequest{Cause: cause, PageToken: token, PageSize: size})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, letter := range res.GetLetters() {
			ids = append(ids, letter.GetAggregateId())
		}
		return res, strings.Join(ids, " ")
	}
	for n := range 3 {
		id := fmt.Sprintf("t%d", n)
		f.transfer(t, "acme", id, "missing", 100)
		f.ended(t, "acme", id)
		wait(t, "no dead letter of "+id, func() bool {
			_, ids := list("acme", "", "", 0)
			return strings.HasSuffix(ids, id)
		})
	}
	if err := testutil.CollectAndCompare(f.node, strings.NewReader(`
# HELP headgate_dead_letters Dead letters of all tenants: failed work that waits for an operator.
# TYPE headgate_dead_letters gauge
headgate_dead_letters 3
# HELP headgate_tenant_dead_letters Dead letters of the ten tenants with the most.
# TYPE headgate_tenant_dead_letters gauge
headgate_tenant_dead_letters{tenant="acme"} 3
`), "headgate_dead_letters", "headgate_tenant_dead_letters"); err != nil {
		t.Error(err)
	}
	if _, ids := list("globex", "", "", 0); ids != "" {
		t.Errorf("letters of acme in globex: %s", ids)
	}
	page, ids := list("acme", "could not be compensated", "", 2)
	if ids != "t0 t1" || page.GetNextPageToken() == "" || page.GetLetters()[0].GetEventType() != "requested" ||
		page.GetLetters()[0].GetData().AsMap()["to"] != "missing" {
		t.Errorf("first page %s: %v", ids, page.GetLetters())
	}
	if last, ids := list("acme", "could not be compensated", page.GetNextPageToken(), 2); ids != "t2" ||
		last.GetNextPageToken() != "" {
		t.Errorf("second page %s", ids)
	}
	if _, ids := list("acme", "other cause", "", 0); ids != "" {
		t.Errorf("letters of another cause: %s", ids)
	}

	// While the cause persists, the first one fails again and all stay.
	replay := func(req *adminv1.ReplayDeadLettersRequest) *adminv1.ReplayDeadLettersResponse {
		t.Helper()
		res, err := f.admin.ReplayDeadLetters(as(t, "acme"), req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := replay(&adminv1.ReplayDeadLettersRequest{}); res.GetReplayed() != 0 ||
		res.GetFailedId() != page.GetLetters()[0].GetId() ||
		!strings.Contains(res.GetFailure(), "could not be compensated") {
		t.Errorf("replay with the cause present: %v", res)
	}
	f.gate.set(nil)
	if res := replay(
		&adminv1.ReplayDeadLettersRequest{Ids: []int64{page.GetLetters()[1].GetId()}},
	); res.GetReplayed() != 1 || res.GetFailedId() != 0 {
		t.Errorf("replay by sequence: %v", res)
	}
	if res := replay(&adminv1.ReplayDeadLettersRequest{Cause: "could not be compensated"}); res.GetReplayed() != 2 ||
		res.GetFailedId() != 0 {
		t.Errorf("replay by cause: %v", res)
	}
	if res := replay(&adminv1.ReplayDeadLettersRequest{}); res.GetReplayed() != 0 || res.GetFailedId() != 0 {
		t.Errorf("replay of no letter: %v", res)
	}
	if _, ids := list("acme", "", "", 0); ids != "" {
		t.Errorf("remaining letters: %s", ids)
	}
	for n := range 3 {
		got, err := f.admin.GetWorkflow(as(t, "acme"),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: fmt.Sprintf("t%d", n)})
		if err != nil || got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED ||
			steps(got) != "debit done, credit refused, fail done, undo debit done" {
			t.Errorf("t%d: %v with %s, %v", n, got.GetState(), steps(got), err)
		}
	}
}

func TestListWorkflows_ReturnsPages(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.wallets(t, "globex")
	for n := range 5 {
		to := "b"
		if n%2 == 1 {
			to = "missing"
		}
		f.transfer(t, "acme", fmt.Sprintf("t%d", n), to, 10)
		f.ended(t, "acme", fmt.Sprintf("t%d", n))
	}
	f.transfer(t, "globex", "secret", "b", 10)
	f.ended(t, "globex", "secret")
	all := func(req *adminv1.ListWorkflowsRequest) (pages []string) {
		for {
			res, err := f.admin.ListWorkflows(as(t, "acme"), req)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, i := range res.GetInstances() {
				ids = append(ids, i.GetSubject().GetAggregateId())
			}
			pages = append(pages, strings.Join(ids, " "))
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				return pages
			}
		}
	}
	for want, req := range map[string]*adminv1.ListWorkflowsRequest{
		"t4 t3 t2 t1 t0": {},
		"t4 t3|t2 t1|t0": {PageSize: 2},
		"t3 t1":          {State: adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED},
		"t4 t2|t0":       {State: adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED, PageSize: 2, Workflow: "transfer"},
		"":               {Workflow: "another"},
	} {
		if got := strings.Join(all(req), "|"); got != want {
			t.Errorf("%v: got %s, want %s", req, got, want)
		}
	}
	list, err := f.admin.ListWorkflows(as(t, "acme"), &adminv1.ListWorkflowsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	oldest := list.GetInstances()[4].GetInstanceId() // of t0
	if list.GetScanned() != 5 || list.GetInstances()[0].GetTenantId() != "acme" {
		t.Errorf("%d instances are read, the first of %q", list.GetScanned(), list.GetInstances()[0].GetTenantId())
	}
	for want, req := range map[string]*adminv1.ListWorkflowsRequest{
		"t4 t3 t2 t1 t0": {IdPrefix: "t"},
		"t4|t3|t2|t1|t0": {IdPrefix: "t", PageSize: 1},
		"t1":             {IdPrefix: "t1"},
		"":               {IdPrefix: "secret"},
		"t0":             {IdPrefix: oldest},
		"t0|":            {IdPrefix: oldest, PageSize: 1},
		"t3 t1":          {Contains: "IS NOT open"}, // the error
		"t3|t1":          {Contains: "not open", PageSize: 1},
		"t4":             {Contains: "transfer/t4"},
		" ":              {Contains: "not open", IdPrefix: "t2"},
	} {
		want = strings.TrimSpace(want)
		if got := strings.Join(all(req), "|"); got != want {
			t.Errorf("%v: got %s, want %s", req, got, want)
		}
	}
	if got := strings.Join(
		all(&adminv1.ListWorkflowsRequest{IdPrefix: oldest[:len(oldest)-1]}), "|",
	); !strings.Contains(
		got, "t0",
	) {
		t.Errorf("by the beginning of its id: got %s", got)
	}
	_, err = f.admin.ListWorkflows(as(t, "acme"), &adminv1.ListWorkflowsRequest{PageToken: "not-a-token"})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("forged page token: %v", err)
	}
}

// All tenants' instances are one list, each with its tenant; its page tokens are not those of a tenant's list.
func TestListAllWorkflows_HasTheInstancesOfAllTenants(t *testing.T) {
	f := start(t)
	for _, tenant := range []string{"acme", "globex"} {
		f.wallets(t, tenant)
		for _, to := range []string{"b", "missing"} {
			f.transfer(t, tenant, to, to, 10)
			f.ended(t, tenant, to)
		}
	}
	all := func(req *adminv1.ListAllWorkflowsRequest) (pages []string) {
		for {
			res, err := f.admin.ListAllWorkflows(platform(t), req)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, i := range res.GetInstances() {
				ids = append(ids, i.GetTenantId()+"/"+i.GetSubject().GetAggregateId())
			}
			pages = append(pages, strings.Join(ids, " "))
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				return pages
			}
			if _, err := f.admin.ListWorkflows(
				as(t, "acme"), &adminv1.ListWorkflowsRequest{PageToken: req.GetPageToken()},
			); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("page token of another list: %v", err)
			}
		}
	}
	for want, req := range map[string]*adminv1.ListAllWorkflowsRequest{
		"globex/missing globex/b acme/missing acme/b": {},
		"globex/missing globex/b acme/missing|acme/b": {PageSize: 3},
		"globex/missing acme/missing":                 {State: adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED},
		"globex/b acme/b":                             {IdPrefix: "b", Contains: "transfer"},
	} {
		if got := strings.Join(all(req), "|"); got != want {
			t.Errorf("%v: got %s, want %s", req, got, want)
		}
	}
}
