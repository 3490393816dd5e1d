package aggregate

import (
	"context"
	"sync"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
)

// budget bounds the bytes of a response. The parts of a batch share it.
type budget struct {
	mu   sync.Mutex
	page response.Page
}

func (s *Service) budget() *budget {
	return &budget{page: response.Page{Bytes: s.limiter.PageBytes()}}
}

// add counts an event's data and reports whether it fits into the response.
func (b *budget) add(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.page.Add(size)
}

// response builds the response to a command. Event data beyond the budget is omitted, because the command has already
// taken effect.
func (s *Service) response(
	ctx context.Context, tenant contextkit.TenantID, decided decision, dryRun bool, room *budget,
) (*aggregatev1.SubmitResponse, error) {
	res := &aggregatev1.SubmitResponse{Version: decided.version, Replayed: decided.replayed}
	if !dryRun {
		res.Position = s.positions.Format(tenant, decided.sequence)
	}
	for n, event := range decided.events {
		out := &aggregatev1.Event{
			Id:      event.ID,
			Type:    event.Type,
			Version: event.Version,
			Time:    timestamppb.New(event.Time),
		}
		res.Events = append(res.Events, out)
		var data model.Object
		if !decided.replayed {
			data = decided.decided[n].Data
		} else {
			// The event may have been stored in an earlier version of its type.
			var err error
			data, err = s.models.Current().Event(ctx, model.EventRef{Aggregate: event.AggregateType, Event: event.Type},
				event.DataVersion, event.Data)
			if err != nil {
				return nil, asConnectError(err)
			}
		}
		if !room.add(response.Object(data)) {
			out.DataOmitted = true
			continue
		}
		var err error
		if out.Data, err = structpb.NewStruct(data); err != nil {
			return nil, asConnectError(err)
		}
	}
	return res, nil
}
