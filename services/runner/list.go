package runner

import (
	"context"
	"strconv"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// listScan is how many instances are read at most for one page.
const listScan = 5000

// ListWorkflows implements RunnerAdmin.
func (s *Service) ListWorkflows(ctx context.Context, req *adminv1.ListWorkflowsRequest) (*adminv1.ListWorkflowsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	before, err := parsePage(req.GetPageToken())
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
	res := &adminv1.ListWorkflowsResponse{}
	next, err := s.instances.bucket.Newest(ctx, recordKey(tenant, workflow, "*"), before, listScan, func(_ string, kept backbone.Kept[*instance]) bool {
		i := kept.Value
		if req.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_UNSPECIFIED && stateMessages[i.State] != req.GetState() {
			return true
		}
		if len(res.Instances) == size {
			return false
		}
		res.Instances = append(res.Instances, &adminv1.WorkflowInstance{
			Workflow: i.Workflow, InstanceId: i.ID, State: stateMessages[i.State], Failure: i.Failure.Message,
			Started: timestamppb.New(i.Started), Updated: timestamppb.New(i.Updated),
		})
		return true
	})
	if err != nil {
		return nil, unavailable("instances", err)
	}
	if next > 0 {
		res.NextPageToken = formatPage(next)
	}
	return res, nil
}

// parsePage returns the number in a page token, 0 for none.
func parsePage(token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	number, err := strconv.ParseUint(token, 36, 64)
	if err != nil {
		return 0, connect.NewError(connect.CodeInvalidArgument, "page_token is not one that was answered")
	}
	return number, nil
}

func formatPage(number uint64) string { return strconv.FormatUint(number, 36) }
