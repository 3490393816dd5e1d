package runner

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/rpc/response"
)

// listScan bounds the instances that are read for one page.
const listScan = 5000

// recordReads are the reads of records for clients that are bounded together.
var recordReads = reads.Config{
	Metric: "headgate_record_reads",
	What:   "reads of workflow instances and dead letters",
	Reason: rpc.ReasonTooManyReads,
}

// ListWorkflows implements RunnerAdmin.
func (s *Service) ListWorkflows(
	ctx context.Context, req *adminv1.ListWorkflowsRequest,
) (*adminv1.ListWorkflowsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	list := newWorkflowList(s, tenant, req)
	next, err := list.read(ctx)
	return &adminv1.ListWorkflowsResponse{
		Instances:     list.instances,
		NextPageToken: next,
		Scanned:       list.scanned,
	}, err
}

// ListAllWorkflows implements RunnerAdmin.
func (s *Service) ListAllWorkflows(
	ctx context.Context, req *adminv1.ListAllWorkflowsRequest,
) (*adminv1.ListAllWorkflowsResponse, error) {
	list := newWorkflowList(s, contextkit.TenantID{}, req)
	next, err := list.read(ctx)
	return &adminv1.ListAllWorkflowsResponse{
		Instances:     list.instances,
		NextPageToken: next,
		Scanned:       list.scanned,
	}, err
}

// workflowSelection selects the instances of a list.
type workflowSelection interface {
	GetWorkflow() string
	GetState() adminv1.WorkflowState
	GetIdPrefix() string
	GetContains() string
	GetPageSize() int32
	GetPageToken() string
}

// workflowList is a page of a list of workflow instances.
type workflowList struct {
	service  *Service
	tenant   contextkit.TenantID // zero: all tenants
	req      workflowSelection
	workflow string // "*": all
	contains string // in lower case
	size     int
	page     response.Page

	instances []*adminv1.WorkflowInstance
	scanned   int32
}

func newWorkflowList(s *Service, tenant contextkit.TenantID, req workflowSelection) *workflowList {
	return &workflowList{
		service:  s,
		tenant:   tenant,
		req:      req,
		workflow: cmp.Or(req.GetWorkflow(), "*"),
		contains: strings.ToLower(req.GetContains()),
		size:     int(cmp.Or(req.GetPageSize(), defaultPage)),
		page:     response.Page{Bytes: s.answers.PageBytes()},
	}
}

// read reads the page, and returns the token of the next one, "" after the last one.
func (l *workflowList) read(ctx context.Context) (next string, err error) {
	leave, err := l.service.enterRead(ctx, l.tenant)
	if err != nil {
		return "", err
	}
	defer leave()
	exact, before, err := l.resume()
	if err != nil {
		return "", err
	}
	if exact { // an instance of that very id comes first
		next, err := l.newest(ctx, l.req.GetIdPrefix(), before, l.add)
		switch {
		case err != nil:
			return "", err
		case next > 0:
			return l.end(ctx, l.scope(true), next)
		case len(l.instances) == l.size:
			return l.end(ctx, l.scope(false), math.MaxUint64-1) // the others begin on the next page
		}
		before = 0
	}
	rest, err := l.newest(ctx, "*", before, func(i *instance) bool {
		return l.req.GetIdPrefix() != "" && i.ID == l.req.GetIdPrefix() || l.add(i)
	})
	if err != nil {
		return "", err
	}
	return l.end(ctx, l.scope(false), rest)
}

// enterRead begins a read of a tenant's records for a client, zero for those of all tenants, which ends when leave is
// called.
func (s *Service) enterRead(ctx context.Context, tenant contextkit.TenantID) (leave func(), err error) {
	if err := s.answers.Admit(tenant); err != nil {
		return nil, err
	}
	return s.reads.Enter(ctx, tenant)
}

// newest is [instances.newest] for the list's instances under an id, "*" for all ids.
func (l *workflowList) newest(
	ctx context.Context, id string, before uint64, each func(*instance) bool,
) (next uint64, err error) {
	tenant := "*"
	if !l.tenant.IsZero() {
		tenant = l.tenant.String()
	}
	next, err = l.service.instances.newest(ctx, tenant+"."+l.workflow+"."+id, before, listScan, func(i *instance) bool {
		l.scanned++
		return each(i)
	})
	if err != nil {
		return 0, unavailable("instances", err)
	}
	return next, nil
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

// selects reports whether the request selects an instance.
func (l *workflowList) selects(i *instance) bool {
	state, prefix := l.req.GetState(), l.req.GetIdPrefix()
	switch {
	case state != adminv1.WorkflowState_WORKFLOW_STATE_UNSPECIFIED && i.message() != state:
		return false
	case !strings.HasPrefix(i.ID, prefix) && !strings.HasPrefix(i.Trigger.Meta.AggregateID, prefix):
		return false
	}
	return l.contains == "" || slices.ContainsFunc(i.texts(), func(text string) bool {
		return strings.Contains(strings.ToLower(text), l.contains)
	})
}

// texts returns what a list shows of the instance as text.
func (i *instance) texts() []string {
	texts := []string{i.Workflow + "/" + i.Trigger.Meta.AggregateID, i.ID, i.Failure.Message}
	if i.Attempts != nil {
		texts = append(texts, i.Attempts.Step, i.Attempts.Error)
	}
	if i.Waiting != nil {
		texts = append(texts, i.Waiting.Step)
	}
	return texts
}

// add adds an instance to the page if the request selects it, and reports false if the page has no room for it.
func (l *workflowList) add(i *instance) bool {
	if !l.selects(i) {
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
		TenantId:   i.tenant.String(),
	}
	if len(l.instances) == l.size || !l.page.Add(proto.Size(out)) {
		return false
	}
	l.instances = append(l.instances, out)
	return true
}

// end returns the token of the next page if next is not 0.
func (l *workflowList) end(ctx context.Context, scope string, next uint64) (string, error) {
	token := ""
	if next > 0 {
		token = l.service.pages.Format(scope, next)
	}
	return token, l.service.answers.Hold(ctx, l.tenant, l.page.Used())
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
