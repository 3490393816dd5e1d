package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// answerMargin is subtracted from a call's deadline, so that a "not reached yet" error arrives before the
	// caller's own timeout.
	answerMargin = 20 * time.Millisecond
	// maxStartWait bounds the wait of a call for views whose checkpoint has not been read: another node may have
	// them.
	maxStartWait = 500 * time.Millisecond
	// maxPositionWait bounds the wait of a call without a deadline.
	maxPositionWait = 5 * time.Second
)

// Service is the QueryService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedQueryServiceHandler

	tenants   *rpc.Tenants
	models    *model.Registry
	journal   *journal.Journal
	opener    store.Opener
	conn      *nats.Conn
	positions *position.Codec
	pages     *query.Pages
	answers   *response.Limiter
	tokens    *token.Gate
	store     func() error // nil: see [Config]
	outage    func() (natshealth.Outage, bool)
	timeline  *timeline.Recorder
	log       zerolog.Logger
	tail      *tail.Tail
	js        jetstream.JetStream
	skips     *skipRecords
	end       uint64        // of the journal when the node started
	wakes     chan struct{} // holds a value while changed has tenants
	damaged   atomic.Int64  // stores that were set aside
	restored  atomic.Int64  // checkpoints that went back
	filters   nodeKeys      // of watches

	mu    sync.RWMutex
	views map[contextkit.TenantID]tenantViews

	changedMu sync.Mutex
	changed   map[contextkit.TenantID]struct{} // tenants to reconcile

	lag cached
}

// Config configures a [Service].
type Config struct {
	// Answers bounds responses in bytes.
	Answers response.Config
	// Tokens selects the version of positions and page tokens that the service issues; nil: the newest.
	Tokens *token.Gate
	// Store returns why the views' database cannot be used, nil when it can; it does not block. nil: the views are in
	// files of the node.
	Store func() error
	// Outage returns the current outage of NATS, and false for none; nil: a lost connection counts as one.
	Outage func() (natshealth.Outage, bool)
}

// New returns the service, which opens each tenant's views with open. timeline may be nil. Close releases them.
func New(
	ctx context.Context, config Config, js jetstream.JetStream, models *model.Registry, tenants *rpc.Tenants,
	open store.Opener, timeline *timeline.Recorder, log zerolog.Logger,
) (_ *Service, err error) {
	journal, err := journal.Open(ctx, js)
	if err != nil {
		return nil, err
	}
	secret, err := kv.SharedSecret(ctx, js, kv.SecretTokens)
	if err != nil {
		return nil, err
	}
	s := &Service{
		tenants:   tenants,
		models:    models,
		journal:   journal,
		opener:    open,
		conn:      js.Conn(),
		log:       log,
		timeline:  timeline,
		positions: position.NewCodec(secret, journal.Epoch, config.Tokens),
		pages:     query.NewPages(secret, config.Tokens),
		answers:   response.NewLimiter(config.Answers),
		tokens:    config.Tokens,
		store:     config.Store,
		outage:    config.Outage,
		js:        js,
		skips:     newSkipRecords(js),
		views:     map[contextkit.TenantID]tenantViews{},
		wakes:     make(chan struct{}, 1),
		changed:   map[contextkit.TenantID]struct{}{},
		tail: tail.New(js, journal, tail.Config{
			Name:       contextkit.KindProjection.String(),
			QueueBytes: queueBytes,
			Log:        log,
		}),
	}
	if s.end, err = s.tail.End(ctx); err != nil {
		return nil, err
	}
	if s.outage == nil {
		s.outage = func() (natshealth.Outage, bool) { return natshealth.Outage{}, !s.conn.IsConnected() }
	}
	var failed []error
	for _, tenant := range tenants.All() {
		f, err := s.openViews(ctx, tenant)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.views[tenant] = tenantViews{current: f}
	}
	switch err := errors.Join(failed...); {
	case err != nil && (len(s.views) == 0 || ctx.Err() != nil):
		return nil, errors.Join(err, s.Close())
	case err != nil: // Run retries; other tenants are served
		log.Error().Err(err).Msg("opening the views of some tenants failed")
	}
	return s, nil
}

// Integrity returns the integrity check of the journal. Its Run must run for the lifetime of the service.
func (s *Service) Integrity() *journal.Integrity { return s.journal.Integrity() }

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterQueryServiceHandler(server, s)
}

// Close closes the views. Run must have returned.
func (s *Service) Close() error {
	var errs []error
	for _, f := range s.followers() {
		errs = append(errs, f.end())
	}
	return errors.Join(errs...)
}

// cached is a number that is computed at most once per second.
type cached struct {
	mu    sync.Mutex
	at    time.Time
	value int64
}

// Lag returns the number of events of all tenants that are not applied to the current views yet. It is up to a second
// old.
func (s *Service) Lag() int64 {
	s.lag.mu.Lock()
	defer s.lag.mu.Unlock()
	if time.Since(s.lag.at) < time.Second {
		return s.lag.value
	}
	s.lag.at, s.lag.value = time.Now(), 0
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, views := range s.views {
		s.lag.value += views.current.waiting()
	}
	return s.lag.value
}

// Ready returns why the service cannot serve the tenant, or any tenant if tenant is zero. It does not require NATS,
// since views can be read without it, as of their checkpoint.
func (s *Service) Ready(ctx context.Context, tenant contextkit.TenantID) error {
	if s.store != nil {
		if err := s.store(); err != nil {
			return err
		}
	}
	if tenant.IsZero() {
		return nil
	}
	views, ok := s.viewsOf(tenant)
	if !ok {
		return fmt.Errorf("tenant %s %w", tenant, rpc.ErrNotServed)
	}
	f := views.current
	if err := f.failing(); errors.Is(err, store.ErrFull) {
		return fmt.Errorf("the tenant's projection does not advance: %w: free disk space; it resumes without a restart",
			store.ErrFull)
	} else if err != nil && !s.away() && !journalLost(err) { // the journal's damage is a degradation
		return errors.New("the tenant's projection does not advance: see the node's log")
	}
	return f.startedProgress(ctx)
}

// away reports whether the journal cannot be read for a reason that is not specific to a tenant's views.
func (s *Service) away() bool {
	_, away := s.outage()
	return away
}

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
	views, ok := s.viewsOf(tenant)
	var release func()
	if ok {
		release, ok = views.current.enter()
	}
	if !ok {
		return nil, nil, 0, nil, asConnectError(errMoved)
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	f := views.current
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

// reach waits until a view's checkpoint has reached a sequence. Errors: a [*behindError] if it does not in time, or
// the reason why the view cannot be read.
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
