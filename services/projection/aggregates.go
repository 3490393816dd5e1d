package projection

import (
	"cmp"
	"context"
	"encoding/base64"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/services/projection/store"
)

// defaultFound is the default size of a page of aggregates.
const defaultFound = 100

// eventType returns an event's type as the index stores it, since other producers' types can be any text.
func eventType(text string) string {
	return excerpt.Text(strings.ToValidUTF8(text, "\uFFFD"), excerpt.Name)
}

// FindAggregates implements QueryService.
func (s *Service) FindAggregates(
	ctx context.Context, req *projectionv1.FindAggregatesRequest,
) (*projectionv1.FindAggregatesResponse, error) {
	f, leave, err := s.openIndex(ctx, req.GetTenantId(), req.GetMinPosition())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.answers.Admit(f.tenant); err != nil {
		return nil, err
	}
	size := int(cmp.Or(req.GetPageSize(), defaultFound))
	lookup := store.Lookup{Type: req.GetAggregateType(), Prefix: req.GetIdPrefix(), Limit: size + 1}
	scope := strings.Join([]string{f.tenant.String(), lookup.Type, lookup.Prefix}, "/")
	if lookup.After, err = s.afterID(scope, lookup.Prefix, req.GetPageToken()); err != nil {
		return nil, err
	}
	s.awaitIndex(ctx, f)
	res, page := &projectionv1.FindAggregatesResponse{}, response.Page{Bytes: s.answers.PageBytes()}
	var indexed store.Indexed
	for more := true; more; {
		read := 0
		indexed, err = f.rows.Aggregates(ctx, lookup, func(a store.Aggregate) error {
			read++
			if a.ID == lookup.After { // another first event of it
				return nil
			}
			out := foundAggregate(a)
			if len(res.Aggregates) == size || !page.Add(proto.Size(out)) {
				res.NextPageToken = base64.RawURLEncoding.EncodeToString(s.found.Seal(nil, scope, []byte(lookup.After)))
				return store.ErrStop
			}
			res.Aggregates, lookup.After = append(res.Aggregates, out), a.ID
			return nil
		})
		if err != nil {
			return nil, asConnectError(err)
		}
		more = res.NextPageToken == "" && read == lookup.Limit
	}
	res.Position = f.positions.Format(f.tenant, min(indexed.Sequence, indexed.Applied))
	res.Incomplete = !indexed.Complete()
	res.Percent = int32(percent(indexed.Sequence, indexed.Applied))
	return res, s.answers.Hold(ctx, f.tenant, page.Used())
}

func foundAggregate(a store.Aggregate) *projectionv1.FoundAggregate {
	out := &projectionv1.FoundAggregate{AggregateType: a.Type, AggregateId: a.ID, FirstEventType: a.Event}
	if created, err := time.Parse(time.RFC3339Nano, a.Created); err == nil {
		out.Created = timestamppb.New(created)
	}
	return out
}

// afterID returns the id in a page token, "" for the first page.
func (s *Service) afterID(scope, prefix, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil {
		raw, err = s.found.Open(scope, raw)
	}
	if err != nil || !strings.HasPrefix(string(raw), prefix) || len(raw) == 0 {
		return "", connect.NewError(connect.CodeInvalidArgument, "page_token: it was not issued for this request")
	}
	return string(raw), nil
}

// openIndex returns the follower whose rows have the tenant's index once it has seen minPosition. The caller calls
// leave when done with the follower.
func (s *Service) openIndex(
	ctx context.Context, tenantField, minPosition string,
) (_ *follower, leave func(), err error) {
	tenant, err := s.tenants.Of(ctx, tenantField)
	if err != nil {
		return nil, nil, err
	}
	f, release, err := s.enter(tenant)
	if err != nil {
		return nil, nil, asConnectError(err)
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	if err := f.startedProgress(ctx); err != nil {
		return nil, nil, asConnectError(err)
	}
	if minPosition == "" {
		return f, release, nil
	}
	least, _, err := s.parsePosition(f, minPosition)
	if err == nil {
		err = s.reach(ctx, f, "", least)
	}
	if err != nil {
		return nil, nil, asConnectError(err)
	}
	return f, release, nil
}

// enter returns the current follower of a tenant and begins to read its rows, until the caller calls leave. Error:
// [errMoved].
func (s *Service) enter(tenant contextkit.TenantID) (f *follower, leave func(), err error) {
	views, ok := s.viewsOf(tenant)
	if ok {
		leave, ok = views.current.enter()
	}
	if !ok {
		return nil, nil, errMoved
	}
	return views.current, leave, nil
}
