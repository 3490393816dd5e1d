package runner

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	scope := tenant.String() + "/workflows"
	before, err := s.parsePage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	workflow, size := req.GetWorkflow(), int(req.GetPageSize())
	if workflow == "" {
		workflow = "*"
	}
	if size == 0 {
		size = defaultPage
	}
	res, page := &adminv1.ListWorkflowsResponse{}, response.Page{Bytes: s.answers.PageBytes()}
	next, err := s.instances.newest(ctx, tenant, workflow, before, listScan, func(i *instance) bool {
		if req.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_UNSPECIFIED && i.message() != req.GetState() {
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
		if len(res.Instances) == size || !page.Add(proto.Size(out)) {
			return false
		}
		res.Instances = append(res.Instances, out)
		return true
	})
	if err != nil {
		return nil, unavailable("instances", err)
	}
	if next > 0 {
		res.NextPageToken = s.pages.Format(scope, next)
	}
	return res, s.answers.Hold(ctx, tenant, page.Used())
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
