package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/position"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// answerMargin is kept of a call's deadline so that "not yet" still reaches
	// the caller instead of its own timeout.
	answerMargin = 20 * time.Millisecond
	// maxPositionWait bounds the wait of a call without a deadline.
	maxPositionWait = 5 * time.Second
)

// Service is the QueryService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedQueryServiceHandler

	tenants   chassis.Tenants
	model     *model.Model
	conn      *nats.Conn
	positions *position.Codec
	pages     *query.Pages
	followers map[contextkit.TenantID]*follower
	log       zerolog.Logger
}

// New opens each tenant's views by open. Close releases them.
func New(ctx context.Context, js jetstream.JetStream, models *model.Registry, tenants chassis.Tenants, open store.Opener, log zerolog.Logger) (_ *Service, err error) {
	journal, err := backbone.OpenJournal(ctx, js)
	if err != nil {
		return nil, err
	}
	secret, err := backbone.SharedSecret(ctx, js, "tokens")
	if err != nil {
		return nil, err
	}
	s := &Service{
		tenants: tenants, model: models.Current(), conn: js.Conn(), log: log,
		positions: position.NewCodec(secret, journal.Epoch()), pages: query.NewPages(secret),
		followers: map[contextkit.TenantID]*follower{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	origin := fmt.Sprintf("%s@%d", s.model.Revision, journal.Epoch())
	for _, tenant := range tenants {
		rows, err := open(ctx, tenant, s.model.Views(), origin)
		if err != nil {
			return nil, err
		}
		if s.followers[tenant], err = newFollower(ctx, tenant, journal, s.model, rows, log); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
	}
	return s, nil
}

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterQueryServiceHandler(server, s)
}

// Run follows every tenant's journal until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range s.followers {
		group.Go(func() error { return f.run(ctx) })
	}
	return group.Wait()
}

// Close closes the views. Run must have returned.
func (s *Service) Close() error {
	var errs []error
	for _, f := range s.followers {
		if f != nil {
			errs = append(errs, f.rows.Close())
		}
	}
	return errors.Join(errs...)
}

// Ready reports why the service cannot answer, for a tenant or at all.
func (s *Service) Ready(_ context.Context, tenant contextkit.TenantID) error {
	if !s.conn.IsConnected() {
		return errors.New("the journal is not reachable")
	}
	if tenant.IsZero() {
		return nil
	}
	f, ok := s.followers[tenant]
	if !ok {
		return fmt.Errorf("tenant %s is not served here", tenant)
	}
	if err := f.failing(); err != nil {
		return errors.New("the tenant's projection does not advance: its log says why")
	}
	if done, building := f.building(); building {
		return &buildingError{done, f.target}
	}
	return nil
}

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- checkpointMetric
	descriptions <- targetMetric
}

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	for tenant, f := range s.followers {
		metrics <- prometheus.MustNewConstMetric(checkpointMetric, prometheus.GaugeValue, float64(f.position()), tenant.String())
		metrics <- prometheus.MustNewConstMetric(targetMetric, prometheus.GaugeValue, float64(f.target), tenant.String())
	}
}

var (
	checkpointMetric = prometheus.NewDesc("headgate_projection_checkpoint", "Journal sequence that the tenant's views have followed.", []string{"tenant"}, nil)
	targetMetric     = prometheus.NewDesc("headgate_projection_target", "Journal sequence from which on the tenant's views are shown.", []string{"tenant"}, nil)
)

// Query implements QueryService.
func (s *Service) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	f, view, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return nil, err
	}
	request := query.Request{
		Filter: req.GetQuery().GetFilter(), OrderBy: req.GetQuery().GetOrderBy(), PageSize: int(req.GetQuery().GetPageSize()),
		PageToken: req.GetQuery().GetPageToken(), Fields: req.GetQuery().GetFields(),
	}
	scope := f.tenant.String() + "/" + view.Name
	plan, err := query.Compile(view, request, f.rows.Dialect(), s.pages, scope)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &projectionv1.QueryResponse{}
	var last []any
	sequence, err := f.rows.Query(ctx, view, plan, func(values, terms []any) error {
		if len(res.Rows) == plan.Limit-1 {
			// The row beyond the page: another page follows the one before it.
			token, err := s.pages.Next(scope, request, last)
			res.NextPageToken = token
			return err
		}
		row, err := structOf(plan.Columns, values)
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
	res.Position = s.positions.Format(f.tenant, sequence)
	return res, nil
}

// Get implements QueryService.
func (s *Service) Get(ctx context.Context, req *projectionv1.GetRequest) (*projectionv1.GetResponse, error) {
	f, view, err := s.open(ctx, req.GetTenantId(), req.GetView(), req.GetMinPosition())
	if err != nil {
		return nil, err
	}
	plan := store.ByKey(view, f.rows.Dialect(), req.GetKey())
	if plan.Columns, err = query.Columns(view, req.GetFields()); err != nil {
		return nil, asConnectError(err)
	}
	var values []any
	sequence, err := f.rows.Query(ctx, view, plan, func(found, _ []any) error {
		values = slices.Clone(found)
		return nil
	})
	if err != nil {
		return nil, asConnectError(err)
	}
	if values == nil {
		return nil, connect.Errorf(connect.CodeNotFound, "view %q has no row %q", view.Name, req.GetKey())
	}
	row, err := structOf(plan.Columns, values)
	if err != nil {
		return nil, asConnectError(err)
	}
	return &projectionv1.GetResponse{Row: row, Position: s.positions.Format(f.tenant, sequence)}, nil
}

// ListViews implements QueryService.
func (s *Service) ListViews(ctx context.Context, req *projectionv1.ListViewsRequest) (*projectionv1.ListViewsResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	res := &projectionv1.ListViewsResponse{Position: s.positions.Format(tenant, s.followers[tenant].position())}
	for _, view := range s.model.Views() {
		out := &projectionv1.View{Name: view.Name}
		for _, column := range view.Columns {
			out.Columns = append(out.Columns, &projectionv1.Column{Name: column.Name, Type: string(column.Type), Indexed: column.Index})
		}
		res.Views = append(res.Views, out)
	}
	return res, nil
}

// open finds the view and waits until it has seen minPosition.
func (s *Service) open(ctx context.Context, tenantField, name, minPosition string) (*follower, *model.View, error) {
	tenant, err := s.tenants.Of(ctx, tenantField)
	if err != nil {
		return nil, nil, err
	}
	view, ok := s.model.View(name)
	if !ok {
		return nil, nil, connect.Errorf(connect.CodeNotFound, "there is no view %q in the model", name)
	}
	f := s.followers[tenant]
	if done, building := f.building(); building {
		return nil, nil, asConnectError(&buildingError{done, f.target})
	}
	if minPosition == "" {
		return f, view, nil
	}
	sequence, err := s.positions.Parse(tenant, minPosition)
	if err != nil {
		return nil, nil, asConnectError(err)
	}
	deadline := time.Now().Add(maxPositionWait)
	if d, ok := ctx.Deadline(); ok {
		deadline = d.Add(-answerMargin)
	}
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := f.wait(waiting, sequence); err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, asConnectError(&behindError{failing: f.failing() != nil})
	}
	return f, view, nil
}

// structOf makes a row's message.
func structOf(columns []model.Column, values []any) (*structpb.Struct, error) {
	fields := make(map[string]*structpb.Value, len(columns))
	for i, column := range columns {
		value, err := structpb.NewValue(values[i])
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", column.Name, err)
		}
		fields[column.Name] = value
	}
	return &structpb.Struct{Fields: fields}, nil
}
