package control

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// defaultAuditPage is the default size of a page.
	defaultAuditPage = 50
	// auditBeat is the interval of keep-alive messages to a follower, and auditBacklog bounds the pending records of
	// one.
	auditBeat, auditBacklog = 15 * time.Second, 256
)

type auditService struct {
	controlv1connect.UnimplementedAuditServiceHandler

	*Service
}

// auditAccount returns the account that a request names, "" for all.
func auditAccount(name string) (streams.Account, error) {
	account := streams.Account(name)
	if account == "" || account == streams.AccountPlatform || account == streams.AccountUnauthenticated {
		return account, nil
	}
	if _, err := contextkit.ParseTenantID(name); err != nil {
		return "", connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	return account, nil
}

// QueryAudit implements AuditService.
func (s auditService) QueryAudit(
	ctx context.Context, req *controlv1.QueryAuditRequest,
) (*controlv1.QueryAuditResponse, error) {
	account, err := auditAccount(req.GetTenantId())
	if err != nil {
		return nil, err
	}
	scope, err := auditScope(req)
	if err != nil {
		return nil, err
	}
	before := uint64(0)
	if text := req.GetPageToken(); text != "" {
		if before, err = s.auditPages.Parse(scope, text); err != nil || before == 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, "page_token was not issued for this query")
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultAuditPage
	}
	res, page := &controlv1.QueryAuditResponse{}, response.NewPage()
	ended := false
	next, err := auditlog.Read(ctx, s.js, account, before, func(record auditlog.Record, stored time.Time) bool {
		if since := req.GetSince(); since != nil && record.Time.Before(since.AsTime()) {
			// The clock of its gateway may be behind: records that were stored before it may be newer.
			ended = stored.Before(since.AsTime())
			return !ended
		}
		if until := req.GetUntil(); until != nil && !record.Time.Before(until.AsTime()) || !fits(req, record) {
			return true
		}
		message := auditMessage(record)
		if len(res.Records) == size || !page.Add(proto.Size(message)) {
			return false
		}
		res.Records = append(res.Records, message)
		return true
	})
	if err != nil {
		return nil, asConnectError(err)
	}
	if next > 0 && !ended {
		res.NextPageToken = s.auditPages.Format(scope, next)
	}
	return res, nil
}

// auditScope returns the scope of a page token: the query except its page.
func auditScope(req *controlv1.QueryAuditRequest) (string, error) {
	query := proto.CloneOf(req)
	query.PageSize, query.PageToken = 0, ""
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(query)
	return string(data), err
}

func fits(req *controlv1.QueryAuditRequest, record auditlog.Record) bool {
	id := req.GetId()
	return (!req.GetChangesOnly() || mayChange(record)) &&
		(req.GetPrincipal() == "" || record.Principal == req.GetPrincipal()) &&
		(req.GetDecision() == "" || record.Decision == req.GetDecision()) &&
		strings.Contains(strings.ToLower(record.Procedure), strings.ToLower(req.GetProcedure())) &&
		(id == "" || record.CorrelationID == id || record.TraceID == id || record.RequestID == id)
}

// mayChange reports whether a record is of an allowed call whose method may change something. A record of an earlier
// version does not state that its method reads; the descriptor of a method of the platform does.
func mayChange(record auditlog.Record) bool {
	if record.Decision != "allowed" || record.Read {
		return false
	}
	name := strings.ReplaceAll(strings.TrimPrefix(record.Procedure, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return true
	}
	options, ok := found.Options().(*descriptorpb.MethodOptions)
	return !ok || options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

func auditMessage(record auditlog.Record) *controlv1.AuditRecord {
	out := &controlv1.AuditRecord{
		Time:          timestamppb.New(record.Time),
		Decision:      record.Decision,
		Reason:        record.Reason,
		Principal:     record.Principal,
		TenantId:      record.Tenant,
		Procedure:     record.Procedure,
		Right:         record.Right,
		Resource:      record.Resource,
		Client:        record.Client,
		Code:          record.Code,
		CorrelationId: record.CorrelationID,
		TraceId:       record.TraceID,
		RequestId:     record.RequestID,
		Node:          record.Node,
		Ms:            record.Milliseconds,
		Suppressed:    record.Suppressed,
		Truncated:     record.Truncated,
	}
	for _, field := range record.Request {
		out.Request = append(out.Request,
			&controlv1.AuditField{Name: field.Name, Value: field.Value, Bytes: int64(field.Bytes)})
	}
	for _, change := range record.Changes {
		out.Changes = append(out.Changes,
			&controlv1.AuditChange{Name: change.Name, Before: change.Before, After: change.After})
	}
	return out
}

// FollowAudit implements AuditService.
func (s auditService) FollowAudit(
	ctx context.Context, req *controlv1.FollowAuditRequest, stream controlv1connect.AuditServiceFollowAuditServerStream,
) error {
	account, err := auditAccount(req.GetTenantId())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	following := make(chan struct{})
	records, ended := make(chan auditlog.Record, auditBacklog), make(chan error, 1)
	defer func() {
		cancel()
		for range ended { // until it is closed; the cause was returned
		}
	}()
	go func() {
		ended <- auditlog.Follow(ctx, s.js, account, func() { close(following) }, func(record auditlog.Record) error {
			select {
			case records <- record:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(ended)
	}()
	select {
	case <-following:
	case err := <-ended:
		return asConnectError(err)
	}
	beat := time.NewTicker(auditBeat)
	defer beat.Stop()
	// The first message announces that records are followed from now on.
	message := &controlv1.FollowAuditResponse{}
	for {
		if err := stream.Send(message); err != nil {
			return err
		}
		message = &controlv1.FollowAuditResponse{}
		for message.Record == nil {
			select {
			case record := <-records:
				if (req.GetDecision() == "" || record.Decision == req.GetDecision()) &&
					(!req.GetChangesOnly() || mayChange(record)) {
					message.Record = auditMessage(record)
				}
				continue
			case err := <-ended:
				return asConnectError(err)
			case <-beat.C:
			}
			break
		}
	}
}
