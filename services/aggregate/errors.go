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

// retryAfter is the delay after which clients are advised to retry.
const retryAfter = 100 * time.Millisecond

// retryStorage is retryAfter while the journal rejects appends for lack of storage.
const retryStorage = 5 * time.Second

// maxReason bounds the text about a rule that cannot be evaluated, since it may quote the payload.
const maxReason = 512

// asConnectError maps the service's errors to RPC errors. No other place does.
func asConnectError(err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*connect.Error](err); known {
		return err
	}
	for _, of := range [...]func(error) error{damageError, decisionError, conflictError, outcomeError, appendError} {
		if converted := of(err); converted != nil {
			return converted
		}
	}
	if errors.Is(err, model.ErrEvaluation) {
		return connect.NewError(connect.CodeInternal,
			"evaluating the model failed: its author must correct it").WithCause(err)
	}
	return unavailable("the journal is unavailable: retry", err)
}

// damageError converts an error about events that are missing, unreadable, or cannot be folded; nil: it is another one.
func damageError(err error) error {
	if unread, ok := errors.AsType[*unreadableError](err); ok {
		return notAnEvent(unread)
	}
	if unfolded, ok := errors.AsType[*unfoldableError](err); ok {
		return notApplicable(unfolded)
	}
	damaged, ok := errors.AsType[*damagedError](err)
	if ok || errors.Is(err, journal.ErrEndMissing) {
		return dataLoss(err, damaged)
	}
	return nil
}

// decisionError converts the reason why the model rejects a command; nil: it is another error.
func decisionError(err error) error {
	if payload, ok := errors.AsType[*model.PayloadError](err); ok {
		return payloadError(payload)
	}
	if rule, ok := errors.AsType[*model.RuleError](err); ok {
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, rule.Message),
			violation("RULE", rule.Rule, rule.Message), rpc.Reason(rpc.ReasonRuleNotMet, "rule", rule.ID))
	}
	if undecided, ok := errors.AsType[*undecidableError](err); ok {
		id, text := "", excerpt.Text(undecided.Error(), maxReason)
		if failed, ok := errors.AsType[*model.EvaluationError](err); ok {
			id = failed.ID
		}
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, text),
			violation("EVALUATION", id, text), rpc.Reason(rpc.ReasonRuleNotEvaluated, "rule", id))
	}
	if rounded, ok := errors.AsType[*roundedError](err); ok {
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, rounded.Error()),
			rpc.Reason(rpc.ReasonIntegerTooLarge, "place", excerpt.Text(rounded.place, excerpt.Name)))
	}
	if large, ok := errors.AsType[*stateSizeError](err); ok {
		return rpc.WithDetails(
			connect.NewError(connect.CodeFailedPrecondition,
				large.Error()+": split the aggregate, or store less in its state"),
			rpc.Reason(rpc.ReasonStateTooLarge, "bytes", fmt.Sprint(large.bytes), "max_bytes",
				fmt.Sprint(maxStateBytes)),
		)
	}
	return nil
}

// violation returns the detail of a command that a rule rejects.
func violation(kind, subject, description string) *errdetails.PreconditionFailure {
	return &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
		{Type: kind, Subject: subject, Description: description},
	}}
}

// payloadError returns the error of a payload that does not match the command's schema. It cuts the names of fields and
// the messages, since they quote the payload.
func payloadError(payload *model.PayloadError) error {
	bad, shown := &errdetails.BadRequest{}, &model.PayloadError{}
	for _, v := range payload.Violations {
		v.Field, v.Message = excerpt.Text(v.Field, excerpt.Name), excerpt.Text(v.Message, excerpt.Name)
		shown.Violations = append(shown.Violations, v)
		bad.FieldViolations = append(bad.FieldViolations,
			&errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Message})
	}
	return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, shown.Error()), bad)
}

// conflictError converts the error of a command that conflicts with other commands or with the tenant's quota; nil: it
// is another error.
func conflictError(err error) error {
	if version, ok := errors.AsType[*versionError](err); ok {
		return rpc.WithDetails(connect.NewError(connect.CodeAborted, version.Error()),
			rpc.Reason(rpc.ReasonVersionMismatch, "current_version", fmt.Sprint(version.current)))
	}
	if quota, ok := errors.AsType[*usage.QuotaError](err); ok {
		return quotaError(quota)
	}
	switch {
	case errors.Is(err, errKeyReused):
		return rpc.WithDetails(
			connect.NewError(connect.CodeAlreadyExists, errKeyReused.Error()+": use a new key for a new command"),
			rpc.Reason(rpc.ReasonIdempotencyKeyReused),
		)
	case errors.Is(err, errContended):
		return rpc.WithDetails(connect.NewError(connect.CodeAborted, err.Error()+": retry").WithCause(err), retryInfo())
	}
	return nil
}

// quotaError returns the error of a command that exceeds the tenant's storage quota.
func quotaError(quota *usage.QuotaError) error {
	tenant := quota.Tenant.String()
	return rpc.WithDetails(connect.NewError(connect.CodeResourceExhausted, quota.Error()),
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
			Subject:         "tenant:" + tenant,
			Description:     quota.Error(),
			QuotaId:         quota.Quota,
			QuotaValue:      quota.Limit,
			QuotaMetric:     "headgate/tenant/" + quota.Quota,
			QuotaDimensions: map[string]string{"tenant": tenant},
		}}},
		rpc.Reason(rpc.ReasonStorageQuota, "scope", "tenant", "quota", quota.Quota, "limit", fmt.Sprint(quota.Limit),
			"use", fmt.Sprint(quota.Use)))
}

// outcomeError converts the error of a command whose caller has left, or whose outcome is unknown; nil: it is another
// error.
func outcomeError(err error) error {
	const learn = ": retry with the same idempotency key to learn the outcome"
	uncertain := errors.Is(err, errUncertain)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		if uncertain {
			return connect.NewError(connect.CodeDeadlineExceeded,
				errUncertain.Error()+" in time"+learn).WithCause(err)
		}
		return err
	case uncertain:
		return unavailable(errUncertain.Error()+learn, err)
	case errors.Is(err, journal.ErrUnconfirmed):
		return unavailable(err.Error()+": retry", err)
	}
	return nil
}

// appendError converts the error of an append after which nothing is stored; nil: it is another error.
func appendError(err error) error {
	storage, full := errors.AsType[*natshealth.StorageError](err)
	switch {
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
	case full:
		return rpc.WithDetails(
			connect.NewError(
				connect.CodeUnavailable,
				"the command was not stored: "+storage.What()+"; retry later with the same idempotency key",
			).WithCause(err),
			rpc.Reason(rpc.ReasonJournalStoresNothing, "refusal", string(storage.Refusal)),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryStorage)},
		)
	case errors.Is(err, journal.ErrRefused):
		return unavailable("the journal rejected the events and stored none of them: retry", err)
	}
	return nil
}

// unavailable returns the error of a call that the client may retry after [retryAfter].
func unavailable(message string, cause error) error {
	return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, message).WithCause(cause), retryInfo())
}

func retryInfo() *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}
}
