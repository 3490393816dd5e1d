package runner

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ListWorkflows implements RunnerAdmin.
func (s *Service) ListWorkflows(ctx context.Context, req *adminv1.ListWorkflowsRequest) (*adminv1.ListWorkflowsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	prefix := tenant.String() + "."
	workflow := req.GetWorkflow()
	if workflow == "" {
		workflow = "*"
	}
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || len(after) > 0 && !strings.HasPrefix(string(after), prefix) {
		return nil, connect.NewError(connect.CodeInvalidArgument, "page_token is not one that was answered")
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	keys, err := s.instances.keys(ctx, prefix+workflow+".*", string(after))
	if err != nil {
		return nil, unavailable("instances", err)
	}
	res := &adminv1.ListWorkflowsResponse{}
	for _, key := range keys {
		parts := strings.SplitN(strings.TrimPrefix(key, prefix), ".", 2)
		i, err := s.instances.load(ctx, tenant, parts[0], parts[1])
		switch {
		case errors.Is(err, errNoInstance):
			continue // it has just come of age
		case err != nil:
			return nil, unavailable("instances", err)
		case req.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_UNSPECIFIED && stateMessages[i.State] != req.GetState():
			continue
		}
		if len(res.Instances) == size {
			last := res.Instances[size-1]
			res.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(recordKey(tenant, last.GetWorkflow(), last.GetInstanceId())))
			break
		}
		res.Instances = append(res.Instances, &adminv1.WorkflowInstance{
			Workflow: i.Workflow, InstanceId: i.ID, State: stateMessages[i.State], Failure: i.Failure.Message,
			Started: timestamppb.New(i.Started), Updated: timestamppb.New(i.Updated),
		})
	}
	return res, nil
}

// keys returns the records' keys that fit a pattern and come after one, sorted.
func (s *instances) keys(ctx context.Context, pattern, after string) ([]string, error) {
	lister, err := s.bucket.ListKeysFiltered(ctx, pattern)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = lister.Stop() }() // it has been read to its end
	var keys []string
	for key := range lister.Keys() {
		if key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
