package gateway_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// upstreamNode is a real node on loopback that records the requests that it receives.
type upstreamNode struct {
	queriesconnect.UnimplementedQueryServiceHandler
	commandsconnect.UnimplementedCommandServiceHandler

	mu      sync.Mutex
	calls   int
	header  map[string][]string
	context contextkit.RequestContext
	left    time.Duration // of the deadline
	query   *projectionv1.QueryRequest
	answer  func(ctx context.Context, call int) error

	cacheControl atomic.Pointer[string]
}

func (u *upstreamNode) note(ctx context.Context) error {
	u.mu.Lock()
	u.calls++
	call, answer := u.calls, u.answer
	info, _ := connect.CallInfoForServerContext(ctx)
	u.header = map[string][]string{}
	for key, values := range info.RequestHeader().All() {
		u.header[strings.ToLower(key)] = values
	}
	u.context, _ = contextkit.FromContext(ctx)
	u.left = 0
	if deadline, ok := ctx.Deadline(); ok {
		u.left = time.Until(deadline)
	}
	u.mu.Unlock()
	info.ResponseHeader().Set("x-node", "one")
	if value := u.cacheControl.Load(); value != nil && *value != "" {
		info.ResponseHeader().Set("cache-control", *value)
	}
	info.ResponseHeader().Set("x-node-bin", connect.EncodeBinaryHeader([]byte{0, 1, 254}))
	info.ResponseTrailer().Set("x-cost", "7")
	if answer != nil {
		return answer(ctx, call)
	}
	return nil
}

func (u *upstreamNode) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	if err := u.note(ctx); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.query = req
	row, err := structpb.NewStruct(
		map[string]any{"view": req.GetView(), "tenant": req.GetTenantId(), "none": nil, "list": []any{1.5, true}},
	)
	return &projectionv1.QueryResponse{Rows: []*structpb.Struct{row}, Position: "p"}, err
}

func (u *upstreamNode) Submit(ctx context.Context, _ *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error) {
	return &aggregatev1.SubmitResponse{Version: 1}, u.note(ctx)
}

func (u *upstreamNode) set(answer func(ctx context.Context, call int) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls, u.answer = 0, answer
}

func (u *upstreamNode) seen() (
	calls int, header map[string][]string, rc contextkit.RequestContext, left time.Duration,
	query *projectionv1.QueryRequest,
) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls, u.header, u.context, u.left, u.query
}
