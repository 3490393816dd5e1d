package runner

import (
	"cmp"
	"context"
	"math"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/rpc/response"
)

// listScan bounds the instances that are read for one page.
const listScan = 5000

// ListWorkflows implements RunnerAdmin.
func (s *Service) ListWorkflows(
	ctx context.Context, req *adminv1.ListWorkflowsRequest,
) (*adminv1.ListWorkflowsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.answers.Admit(tenant); err != nil {
		return nil, err
	}
	list := newWorkflowList(s, tenant, req)
	exact, before, err := list.resume()
	if err != nil {
		return nil, err
	}
	if exact { // an instance of that very id comes first
		next, err := s.instances.newest(ctx, tenant, list.workflow, req.GetIdPrefix(), before, listScan, list.add)
		switch {
		case err != nil:
			return nil, unavailable("instances", err)
		case next > 0:
			return list.end(ctx, list.scope(true), next)
		case len(list.res.GetInstances()) == list.size:
			return list.end(ctx, list.scope(false), math.MaxUint64-1) // the others begin on the next page
		}
		before = 0
	}
	next, err := s.instances.newest(ctx, tenant, list.workflow, "*", before, listScan, func(i *instance) bool {
		return req.GetIdPrefix() != "" && i.ID == req.GetIdPrefix() || list.add(i)
	})
	if err != nil {
		return nil, unavailable("instances", err)
	}
	return list.end(ctx, list.scope(false), next)
}

// workflowList is a page of a list of workflow instances.
type workflowList struct {
	service  *Service
	tenant   contextkit.TenantID
	req      *adminv1.ListWorkflowsRequest
	workflow string // "*": all
	size     int
	page     response.Page
	res      *adminv1.ListWorkflowsResponse
}

func newWorkflowList(s *Service, tenant contextkit.TenantID, req *adminv1.ListWorkflowsRequest) *workflowList {
	return &workflowList{
		service:  s,
		tenant:   tenant,
		req:      req,
		workflow: cmp.Or(req.GetWorkflow(), "*"),
		size:     int(cmp.Or(req.GetPageSize(), defaultPage)),
		page:     response.Page{Bytes: s.answers.PageBytes()},
		res:      &adminv1.ListWorkflowsResponse{},
	}
}

// scope is the scope of page tokens: of the instances of the requested id, or of the others.
func (l *workflowList) scope(exact bool) string {
	if exact {
		return l.tenant.String() + "/workflows/" + l.req.GetIdPrefix()
	}
	return l.tenant.String() + "/workflows"
}

// resume returns where the page begins, and whether it begins with instances of the requested id.
func (l *workflowList) resume() (exact bool, before uint64, err error) {
	token, exact := l.req.GetPageToken(), l.req.GetIdPrefix() != ""
	if exact && token != "" {
		if before, err = l.service.parsePage(l.scope(true), token); err == nil {
			return true, before, nil
		}
		exact = false
	}
	before, err = l.service.parsePage(l.scope(false), token)
	return exact, before, err
}

// add adds an instance to the page if the request selects it, and reports false if the page has no room for it.
func (l *workflowList) add(i *instance) bool {
	state, prefix := l.req.GetState(), l.req.GetIdPrefix()
	if state != adminv1.WorkflowState_WORKFLOW_STATE_UNSPECIFIED && i.message() != state ||
		!strings.HasPrefix(i.ID, prefix) && !strings.HasPrefix(i.Trigger.Meta.AggregateID, prefix) {
		return true
	}
	out := &adminv1.WorkflowInstance{
		Workflow:   i.Workflow,
		InstanceId: i.ID,
		State:      i.message(),
		Failure:    i.Failure.Message,
		Started:    timestamppb.New(i.Started),
		Updated:    timestamppb.New(i.Updated),
		Subject:    i.subject(),
		Model:      i.Model,
		Attempts:   i.Attempts.message(),
		Waiting:    i.Waiting.message(),
	}
	if len(l.res.GetInstances()) == l.size || !l.page.Add(proto.Size(out)) {
		return false
	}
	l.res.Instances = append(l.res.Instances, out)
	return true
}

// end returns the page, with the token of the next one if next is not 0.
func (l *workflowList) end(ctx context.Context, scope string, next uint64) (*adminv1.ListWorkflowsResponse, error) {
	if next > 0 {
		l.res.NextPageToken = l.service.pages.Format(scope, next)
	}
	return l.res, l.service.answers.Hold(ctx, l.tenant, l.page.Used())
}

// parsePage returns the number in a page token of a list, 0 for none.
func (s *Service) parsePage(scope, text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	number, err := s.pages.Parse(scope, text)
	if err != nil {
		return 0, connect.NewError(connect.CodeInvalidArgument, "page_token was not issued for this list")
	}
	return number, nil
}
