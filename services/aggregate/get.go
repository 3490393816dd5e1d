package aggregate

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/response"
)

// GetAggregate implements CommandService.
func (s *Service) GetAggregate(
	ctx context.Context, req *aggregatev1.GetAggregateRequest,
) (*aggregatev1.GetAggregateResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.limiter.Admit(tenant); err != nil {
		return nil, err
	}
	by, err := rulesOf(s.models.Current(), req.GetAggregateType())
	if err != nil {
		return nil, err
	}
	key := aggregateKey{tenant, req.GetAggregateType(), req.GetAggregateId()}
	state, version, err := s.state(ctx, key, by, req.GetVersion())
	switch {
	case err != nil:
		return nil, asConnectError(err)
	case version == 0:
		return nil, connect.Errorf(connect.CodeNotFound, "%s %q has no events", key.aggregateType, key.id)
	case version < req.GetVersion():
		return nil, connect.Errorf(connect.CodeOutOfRange, "%s %q is at version %d; version %d does not exist yet",
			key.aggregateType, key.id, version, req.GetVersion())
	}
	size := response.Object(state)
	if err := response.TooLarge("the aggregate's state", size); err != nil {
		return nil, err
	}
	if err := s.limiter.Hold(ctx, tenant, size); err != nil {
		return nil, err
	}
	object, err := structpb.NewStruct(state)
	if err != nil {
		return nil, asConnectError(err)
	}
	return &aggregatev1.GetAggregateResponse{State: object, Version: version}, nil
}
