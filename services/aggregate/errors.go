package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/usage"
	"github.com/headgate/headgate/model"
)

// retryAfter is the retry delay that clients are asked for.
const retryAfter = 100 * time.Millisecond

// retryStorage is the retry delay that clients are asked for while the journal rejects appends for lack of storage.
const retryStorage = 5 * time.Second

// maxReason bounds the text about a rule that cannot be evaluated, since it may quote the payload.
const maxReason = 512

// asConnectError maps the service's errors to RPC errors. No other place does.
func asConnectError(err error) error {
	if err == nil {
		return nil // returns before the variables below are allocated
	}
	var (
		payload *model.PayloadError
		rule    *model.RuleError

		undecided *undecidableError
		rounded   *roundedError
		version   *versionError
		known     *connect.Error
		large     *stateSizeError
		storage   *natshealth.StorageError
		quota     *usage.QuotaError
		damaged   *damagedError
		unread    *unreadableError
		unfolded  *unfoldableError
	)
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &unread):
		return notAnEvent(unread)
	case errors.As(err, &unfolded):
		return notApplicable(unfolded)
	case errors.As(err, &damaged), errors.Is(err, journal.ErrEndMissing):
		return dataLoss(err, damaged)
	case errors.As(err, &payload):
		bad, shown := &errdetails.BadRequest{}, &model.PayloadError{} // fields and messages quote the payload
		for _, v := range payload.Violations {
			v.Field, v.Message = excerpt.Text(v.Field, excerpt.Name), excerpt.Text(v.Message, excerpt.Name)
			shown.Violations = append(shown.Violations, v)
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Message})
		}
		return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, shown.Error()), bad)
	case errors.As(err, &rule):
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, rule.Message),
			&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
				{Type: "RULE", Subject: rule.Rule, Description: rule.Message},
			}},
			rpc.Reason(rpc.ReasonRuleNotMet, "rule", rule.ID))
	case errors.As(err, &undecided):
		id, text := "", excerpt.Text(undecided.Error(), maxReason)
		if failed, ok := errors.AsType[*model.EvaluationError](err); ok {
			id = failed.ID
		}
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, text),
			&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
				{Type: "EVALUATION", Subject: id, Description: text},
			}},
			rpc.Reason(rpc.ReasonRuleNotEvaluated, "rule", id))
	case errors.As(err, &rounded):
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, rounded.Error()),
			rpc.Reason(rpc.ReasonIntegerTooLarge, "place", excerpt.Text(rounded.place, excerpt.Name)))
	case errors.As(err, &version):
		return rpc.WithDetails(connect.NewError(connect.CodeAborted, version.Error()),
			rpc.Reason(rpc.ReasonVersionMismatch, "current_version", fmt.Sprint(version.current)))
	case errors.As(err, &large):
		return rpc.WithDetails(
			connect.NewError(connect.CodeFailedPrecondition,
				large.Error()+": split the aggregate, or store less in its state"),
			rpc.Reason(rpc.ReasonStateTooLarge, "bytes", fmt.Sprint(large.bytes), "max_bytes",
				fmt.Sprint(maxStateBytes)),
		)
	case errors.As(err, &quota):
		return rpc.WithDetails(connect.NewError(connect.CodeResourceExhausted, quota.Error()),
			&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
				Subject: "tenant:" + quota.Tenant.String(), Description: quota.Error(), QuotaId: quota.Quota,
				QuotaValue:      quota.Limit,
				QuotaMetric:     "headgate/tenant/" + quota.Quota,
				QuotaDimensions: map[string]string{"tenant": quota.Tenant.String()},
			}}},
			rpc.Reason(
				rpc.ReasonStorageQuota, "scope", "tenant", "quota", quota.Quota, "limit", fmt.Sprint(quota.Limit),
				"use", fmt.Sprint(quota.Use),
			))
	case errors.Is(err, errKeyReused):
		return rpc.WithDetails(
			connect.NewError(connect.CodeAlreadyExists, errKeyReused.Error()+": use a new key for a new command"),
			rpc.Reason(rpc.ReasonIdempotencyKeyReused),
		)
	case errors.Is(err, errContended):
		return rpc.WithDetails(connect.NewError(connect.CodeAborted, err.Error()+": retry").WithCause(err), retryInfo())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		if errors.Is(err, errUncertain) {
			return connect.NewError(
				connect.CodeDeadlineExceeded,
				errUncertain.Error()+" in time: retry with the same idempotency key to learn the outcome",
			).WithCause(err)
		}
		return err
	case errors.Is(err, errUncertain):
		return rpc.WithDetails(
			connect.NewError(connect.CodeUnavailable,
				errUncertain.Error()+": retry with the same idempotency key to learn the outcome").WithCause(err),
			retryInfo(),
		)
	case errors.Is(err, journal.ErrUnconfirmed):
		return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, err.Error()+": retry").WithCause(err),
			retryInfo())
	case errors.Is(err, journal.ErrTooLarge):
		return connect.NewError(connect.CodeInvalidArgument,
			"an event of the command exceeds the journal's size limit").WithCause(err)
	case errors.Is(err, journal.ErrTooMany):
		return rpc.WithDetails(
			connect.Errorf(
				connect.CodeInvalidArgument,
				"the commands for one aggregate cause more than %d events: split the batch", journal.MaxAppend,
			).WithCause(err),
			rpc.Reason(rpc.ReasonTooManyEvents, "max_events", fmt.Sprint(journal.MaxAppend)),
		)
	case errors.As(err, &storage):
		return rpc.WithDetails(
			connect.NewError(
				connect.CodeUnavailable,
				"the command was not stored: "+storage.What()+"; retry later with the same idempotency key",
			).WithCause(err),
			rpc.Reason(rpc.ReasonJournalStoresNothing, "refusal", string(storage.Refusal)),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryStorage)},
		)
	case errors.Is(err, journal.ErrRefused):
		return rpc.WithDetails(
			connect.NewError(connect.CodeUnavailable,
				"the journal rejected the events and stored none of them: retry").WithCause(err),
			retryInfo(),
		)
	case errors.Is(err, model.ErrEvaluation):
		return connect.NewError(connect.CodeInternal,
			"evaluating the model failed: its author must correct it").WithCause(err)
	}
	return rpc.WithDetails(
		connect.NewError(connect.CodeUnavailable, "the journal is unavailable: retry").WithCause(err), retryInfo(),
	)
}

func retryInfo() *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}
}
