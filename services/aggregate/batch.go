package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
)

// batchConcurrency bounds the aggregates of one batch that are processed concurrently.
const batchConcurrency = 8

// part is the commands of a batch for one aggregate.
type part struct {
	submission
	indexes []int // indexes of the commands in the batch
	invalid bool  // one of the commands is invalid: none is decided
}

// SubmitBatch implements CommandService.
func (s *Service) SubmitBatch(
	ctx context.Context, req *aggregatev1.SubmitBatchRequest,
) (*aggregatev1.SubmitBatchResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.limiter.Admit(tenant); err != nil {
		return nil, err
	}
	if err := distinctKeys(req); err != nil {
		return nil, err
	}
	res := &aggregatev1.SubmitBatchResponse{Results: make([]*aggregatev1.BatchResult, len(req.GetCommands()))}
	parts, err := s.partsOf(ctx, tenant, req, res)
	if err != nil {
		return nil, err
	}
	room := s.budget()
	last := submitParts(parts, func(p *part) uint64 { return s.submitPart(ctx, p, res, room) })
	if last > 0 && !req.GetDryRun() {
		res.Position = s.positions.Format(tenant, last)
	}
	s.limiter.Count(ctx, tenant, room.page.Used())
	return res, nil
}

// partsOf returns the parts of a batch, in the order of their first commands. A command that is invalid has its result
// in res, and makes its part invalid. Error: the caller may not send one of the commands.
func (s *Service) partsOf(
	ctx context.Context, tenant contextkit.TenantID, req *aggregatev1.SubmitBatchRequest,
	res *aggregatev1.SubmitBatchResponse,
) ([]*part, error) {
	var order []*part
	parts := map[aggregateKey]*part{}
	current, platform, principal := s.models.Current(), fromPlatform(ctx), principalOf(ctx)
	for n, c := range req.GetCommands() {
		key := aggregateKey{tenant, c.GetAggregateType(), c.GetAggregateId()}
		p := parts[key]
		if p == nil {
			p = &part{submission: submission{
				key:       key,
				dryRun:    req.GetDryRun(),
				platform:  platform,
				principal: principal,
			}}
			parts[key] = p
			order = append(order, p)
		}
		p.indexes = append(p.indexes, n)
		by, prepared, err := prepare(current, asSubmit(req, n))
		if err != nil {
			res.Results[n] = failed(err)
			p.invalid = true
			continue
		}
		if err := permit(ctx, by, prepared); err != nil {
			return nil, err
		}
		p.rules = by
		p.commands = append(p.commands, prepared)
	}
	return order, nil
}

// submitParts calls submit for each part, for at most batchConcurrency parts concurrently, and returns the last of the
// sequences that it returns.
func submitParts(parts []*part, submit func(*part) (sequence uint64)) (last uint64) {
	var group errgroup.Group
	group.SetLimit(batchConcurrency)
	sequences := make([]uint64, len(parts))
	for i, p := range parts {
		group.Go(func() error {
			sequences[i] = submit(p)
			return nil
		})
	}
	_ = group.Wait() // errors are results of the commands
	for _, sequence := range sequences {
		last = max(last, sequence)
	}
	return last
}

// distinctKeys rejects a batch in which two commands have the same idempotency key, since one of them would take
// effect under the key of the other.
func distinctKeys(req *aggregatev1.SubmitBatchRequest) error {
	seen := map[string]int{}
	for n := range req.GetCommands() {
		key := batchKey(req, n)
		first, taken := seen[key]
		if key != "" && taken {
			field, text := fmt.Sprintf("commands[%d].idempotency_key",
				n), fmt.Sprintf("is also used by commands[%d]: each command needs its own key", first)
			return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, field+" "+text),
				&errdetails.BadRequest{
					FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: text}},
				})
		}
		seen[key] = n
	}
	return nil
}

// batchKey returns the idempotency key of a command: its own, or one derived from the key of the batch.
func batchKey(req *aggregatev1.SubmitBatchRequest, n int) string {
	if key := req.GetCommands()[n].GetIdempotencyKey(); key != "" || req.GetIdempotencyKey() == "" {
		return key
	}
	return fmt.Sprintf("%s#%d", req.GetIdempotencyKey(), n)
}

// submitPart decides the commands for one aggregate, writes their results, and returns the sequence of the last event;
// 0: no event was stored.
func (s *Service) submitPart(
	ctx context.Context, p *part, res *aggregatev1.SubmitBatchResponse, room *budget,
) (last uint64) {
	if p.invalid {
		p.abortRest(res, -1)
		return 0
	}
	began := time.Now()
	decided, err := s.submit(ctx, p.submission)
	if !p.dryRun {
		s.record(ctx, p.key, fmt.Sprintf("batch of %d", len(p.commands)), began, decided, asConnectError(err))
	}
	if err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			res.Results[p.indexes[refused.index]] = failed(asConnectError(err))
			p.abortRest(res, p.indexes[refused.index])
			return 0
		}
		for _, index := range p.indexes {
			res.Results[index] = failed(asConnectError(err))
		}
		return 0
	}
	for n, d := range decided {
		response, err := s.response(ctx, p.key.tenant, d, p.dryRun, room)
		if err != nil {
			res.Results[p.indexes[n]] = failed(err)
			continue
		}
		res.Results[p.indexes[n]] = &aggregatev1.BatchResult{
			Result: &aggregatev1.BatchResult_Response{Response: response},
		}
		last = max(last, d.sequence)
	}
	return last
}

// abortRest sets the error of the part's commands that have no result yet.
func (p *part) abortRest(res *aggregatev1.SubmitBatchResponse, cause int) {
	for _, index := range p.indexes {
		if index != cause && res.Results[index] == nil {
			res.Results[index] = failed(rpc.WithDetails(
				connect.NewError(connect.CodeAborted,
					"another command of the batch for the same aggregate was refused, so this one was not decided"),
				rpc.Reason(rpc.ReasonBatchRefused)))
		}
	}
}

// asSubmit returns one command of a batch as a SubmitRequest.
func asSubmit(req *aggregatev1.SubmitBatchRequest, n int) *aggregatev1.SubmitRequest {
	c := req.GetCommands()[n]
	return &aggregatev1.SubmitRequest{
		TenantId:        req.GetTenantId(),
		AggregateType:   c.GetAggregateType(),
		AggregateId:     c.GetAggregateId(),
		Command:         c.GetCommand(),
		Payload:         c.GetPayload(),
		IdempotencyKey:  batchKey(req, n),
		ExpectedVersion: c.ExpectedVersion,
		DryRun:          req.GetDryRun(),
	}
}

// failed returns an error as the result of a command.
func failed(err error) *aggregatev1.BatchResult {
	known := rpc.Public(err)
	status := &spb.Status{Code: int32(known.Code()), Message: known.Message()}
	for _, detail := range known.Details() {
		status.Details = append(status.Details,
			&anypb.Any{TypeUrl: "type.googleapis.com/" + detail.Type, Value: detail.Value})
	}
	return &aggregatev1.BatchResult{Result: &aggregatev1.BatchResult_Error{Error: status}}
}
