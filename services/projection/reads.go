package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// Query implements QueryService.
func (s *Service) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	f, view, least, leave, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.answers.Admit(f.tenant); err != nil {
		return nil, err
	}
	request := query.Request{
		Filter:    req.GetQuery().GetFilter(),
		OrderBy:   req.GetQuery().GetOrderBy(),
		PageSize:  int(req.GetQuery().GetPageSize()),
		PageToken: req.GetQuery().GetPageToken(),
		Fields:    req.GetQuery().GetFields(),
	}
	scope := f.tenant.String() + "/" + view.Name
	plan, err := s.plan(ctx, f, view, least, request, scope)
	if err != nil {
		return nil, asConnectError(err)
	}
	res, page := &projectionv1.QueryResponse{}, response.Page{Bytes: s.answers.PageBytes()}
	var last []any
	state, err := f.readRows(ctx, view, least, plan, func(values, terms []any) error {
		if len(res.Rows) == plan.Limit-1 || !page.Add(rowSize(plan.Columns, values)) {
			// There is a row beyond the page, so there is a next page.
			token, err := s.pages.Next(scope, request, plan, last)
			if err != nil {
				return err
			}
			res.NextPageToken = token
			return store.ErrStop
		}
		row, err := structOf(keyOf(terms), plan.Columns, values)
		if err != nil {
			return err
		}
		res.Rows = append(res.Rows, row)
		last = append(last[:0], terms...)
		return nil
	})
	if err != nil {
		return nil, asConnectError(err)
	}
	if err := s.answers.Hold(ctx, f.tenant, page.Used()); err != nil {
		return nil, err
	}
	res.Position, res.Incomplete = f.positions.Format(f.tenant, state.Sequence), f.incomplete(view, state)
	return res, nil
}

// plan returns the plan of a page of a view.
func (s *Service) plan(
	ctx context.Context, f *follower, view *model.View, least uint64, request query.Request, scope string,
) (query.Plan, error) {
	plan, err := query.Compile(view, request, f.rows.Dialect())
	plan.Fingerprint = f.fingerprint(view)
	if err != nil || request.PageToken == "" {
		return plan, err
	}
	cursor, err := s.pages.Parse(request.PageToken, scope, request, plan)
	if err != nil {
		return plan, err
	}
	if cursor.Digests() {
		row := store.ByKey(view, f.rows.Dialect(), cursor.Key())
		row.Columns, row.Terms = nil, plan.Terms
		var found []any
		if _, err := f.readRows(ctx, view, least, row, func(_, terms []any) error {
			found = slices.Clone(terms)
			return nil
		}); err != nil {
			return plan, err
		}
		if err := cursor.Resolve(found); err != nil {
			return plan, err
		}
	}
	return plan.After(f.rows.Dialect(), cursor), nil
}

// Get implements QueryService.
func (s *Service) Get(ctx context.Context, req *projectionv1.GetRequest) (*projectionv1.GetResponse, error) {
	f, view, least, leave, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.answers.Admit(f.tenant); err != nil {
		return nil, err
	}
	plan := store.ByKey(view, f.rows.Dialect(), req.GetKey())
	if plan.Columns, err = query.Columns(view, req.GetFields()); err != nil {
		return nil, asConnectError(err)
	}
	var values []any
	state, err := f.readRows(ctx, view, least, plan, func(found, _ []any) error {
		values = slices.Clone(found)
		return nil
	})
	if err != nil {
		return nil, asConnectError(err)
	}
	if values == nil {
		return nil, connect.Errorf(connect.CodeNotFound, "view %q has no row %q", view.Name, req.GetKey())
	}
	size := rowSize(plan.Columns, values)
	if err := response.TooLarge("the row", size); err != nil {
		return nil, err
	}
	if err := s.answers.Hold(ctx, f.tenant, size); err != nil {
		return nil, err
	}
	row, err := structOf(req.GetKey(), plan.Columns, values)
	if err != nil {
		return nil, asConnectError(err)
	}
	return &projectionv1.GetResponse{
		Row:        row,
		Position:   f.positions.Format(f.tenant, state.Sequence),
		Incomplete: f.incomplete(view, state),
	}, nil
}

// ListViews implements QueryService.
func (s *Service) ListViews(
	ctx context.Context, req *projectionv1.ListViewsRequest,
) (*projectionv1.ListViewsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	views, ok := s.viewsOf(tenant)
	if !ok {
		return nil, asConnectError(errMoved)
	}
	res := &projectionv1.ListViewsResponse{
		Position:    views.current.positions.Format(tenant, views.current.lastApplied()),
		Generations: []*projectionv1.Generation{s.generation(views.current)},
	}
	res.Generations[0].Shown = true
	if views.building != nil {
		res.Generations = append(res.Generations, s.generation(views.building))
	}
	for _, view := range views.current.model.Views() {
		out := &projectionv1.View{Name: view.Name}
		for _, column := range view.Columns {
			out.Columns = append(out.Columns,
				&projectionv1.Column{Name: column.Name, Type: string(column.Type), Indexed: column.Index})
		}
		views.current.describe(view, out)
		res.Views = append(res.Views, out)
	}
	return res, nil
}

// generation returns a follower's progress as a message.
func (s *Service) generation(f *follower) *projectionv1.Generation {
	applied, target, _ := f.building()
	out := &projectionv1.Generation{
		Model:           f.model.Revision,
		Failing:         f.failing() != nil,
		AppliedPosition: f.positions.Format(f.tenant, applied),
		TargetPosition:  f.positions.Format(f.tenant, target),
		Percent:         int32(percent(applied, target)),
	}
	if !s.tokens.Sealed() { // for control nodes that cannot read encrypted positions
		out.Applied, out.Target = int64(applied), int64(target)
	}
	return out
}

// open finds the view and waits until it has seen minPosition. least is that position's sequence: rows must be read
// at it or later, regardless of the checkpoint that the follower knows. The caller calls leave when done with the
// follower.
func (s *Service) open(
	ctx context.Context, tenantField, name, minPosition string,
) (_ *follower, _ *model.View, least uint64, leave func(), err error) {
	tenant, err := s.tenants.Of(ctx, tenantField)
	if err != nil {
		return nil, nil, 0, nil, err
	}
	f, release, err := s.enter(tenant)
	if err != nil {
		return nil, nil, 0, nil, asConnectError(err)
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	view, ok := f.model.View(name)
	if !ok {
		return nil, nil, 0, nil, connect.Errorf(connect.CodeNotFound, "the model has no view %q", name)
	}
	if err := f.startedProgress(ctx); err != nil {
		return nil, nil, 0, nil, asConnectError(err)
	}
	if err := f.startedView(ctx, name); err != nil {
		return nil, nil, 0, nil, asConnectError(err)
	}
	if minPosition == "" {
		return f, view, 0, release, nil
	}
	if least, _, err = s.parsePosition(f, minPosition); err != nil {
		return nil, nil, 0, nil, asConnectError(err)
	}
	if err := s.reach(ctx, f, name, least); err != nil {
		return nil, nil, 0, nil, asConnectError(err)
	}
	return f, view, least, release, nil
}

// parsePosition returns the sequence of a client's position, and the view in it, if any. Error: a [*buildingError]
// while the views are of a journal that has lost its end, since their sequences are not comparable with the
// position's.
func (s *Service) parsePosition(f *follower, text string) (sequence uint64, of *position.View, err error) {
	sequence, of, err = s.positions.ParseView(f.tenant, text)
	if err == nil && f.epoch != s.journal.Epoch() {
		building := &buildingError{target: 1}
		if views, ok := s.viewsOf(f.tenant); ok && views.building != nil {
			building.done, building.target, _ = views.building.building()
		}
		err = building
	}
	return sequence, of, err
}

// reach waits until a view's checkpoint, or that of the views in step if view is "", has reached a sequence. Errors: a
// [*behindError] if it does not in time, or the reason why the view cannot be read.
func (s *Service) reach(ctx context.Context, f *follower, view string, sequence uint64) error {
	deadline := time.Now().Add(maxPositionWait)
	if d, ok := ctx.Deadline(); ok {
		deadline = d.Add(-answerMargin)
	}
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := f.waitReached(waiting, view, sequence); err != nil {
		switch {
		case errors.Is(err, errMoved):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		return &behindError{failing: f.failing() != nil, full: errors.Is(f.failing(), store.ErrFull), away: s.away()}
	}
	if view == "" {
		return nil
	}
	_, err := f.viewState(view)
	return err
}

// rowSize returns the bytes of a row's message.
func rowSize(columns []model.Column, values []any) int {
	size := 0
	for i, column := range columns {
		size += response.Member(column.Name, values[i])
	}
	return size
}

// structOf returns the message of the row under key. Error: [*roundedError] if a value cannot be represented.
func structOf(key string, columns []model.Column, values []any) (*structpb.Struct, error) {
	fields := make(map[string]*structpb.Value, len(columns))
	for i, column := range columns {
		if _, rounded := model.Rounded(values[i]); rounded {
			return nil, &roundedError{key: key, column: column.Name}
		}
		value, err := structpb.NewValue(values[i])
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", column.Name, err)
		}
		fields[column.Name] = value
	}
	return &structpb.Struct{Fields: fields}, nil
}
