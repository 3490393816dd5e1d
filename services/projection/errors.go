package projection

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// retryAfter is the delay after which clients are advised to retry.
const retryAfter = 200 * time.Millisecond

// fullRetryAfter is the retry delay while the disk of the views is full.
const fullRetryAfter = 5 * time.Second

// storeRetryAfter is the retry delay while the views' database is unavailable.
const storeRetryAfter = 500 * time.Millisecond

// stated are the failures of a follower whose text names neither files nor contents.
var stated = []error{
	store.ErrUnavailable, store.ErrDamaged, store.ErrDecode, tail.ErrReplaced, journal.ErrMalformedEvent,
}

// causeOf returns why a follower does not advance, for the tenant's clients. The node's log has the whole error.
func causeOf(err error) string {
	for _, known := range stated {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if natsclient.Away(err) {
		return "the journal does not respond"
	}
	return "the store of the views refuses a change"
}

// behindError reports that min_position was not reached within the deadline.
type behindError struct {
	failing bool // the projection does not advance
	full    bool // because its disk is full
	away    bool // because the journal cannot be reached
}

func (e *behindError) Error() string {
	if e.away {
		return "the view has not reached min_position: the journal is unavailable"
	}
	if e.full {
		return "the view has not reached min_position: " + store.ErrFull.Error()
	}
	if e.failing {
		return "the view has not reached min_position: its projection does not advance"
	}
	return "the view has not reached min_position within the deadline"
}

// buildingError reports that the views do not contain yet what the journal contained when the node started.
type buildingError struct {
	done, target uint64
	rebuilt      bool   // since they were damaged
	restored     bool   // since their database went back to an earlier state
	view         string // the only view that is being built; "": all of them
}

func (e *buildingError) Error() string {
	if e.rebuilt {
		return fmt.Sprintf("the tenant's views were damaged and are being rebuilt: %d %%", percent(e.done, e.target))
	}
	if e.restored {
		return fmt.Sprintf(
			"the database of the tenant's views was restored or has failed over to an earlier state; the views are "+
				"catching up: %d %%",
			percent(e.done, e.target),
		)
	}
	if e.view != "" {
		return fmt.Sprintf("the view %q is being built: %d %%", e.view, percent(e.done, e.target))
	}
	return fmt.Sprintf("the tenant's views are being built: %d %%", percent(e.done, e.target))
}

// failedError reports that a view cannot apply an event.
type failedError struct{ failure *Failure }

func (e *failedError) Error() string {
	f := e.failure
	text := fmt.Sprintf("the view %q cannot apply the event %s.%s (%s) of %s", f.View, f.AggregateType, f.EventType,
		f.EventID, f.aggregate())
	if f.Expression != "" {
		text += fmt.Sprintf(": the expression `%s` fails", f.Expression)
	}
	return text + ": " + f.Reason + ": an operator can correct the view in the model, or skip the event"
}

// details returns the failure as error details, without the event's sequence, since all tenants share the journal.
func (e *failedError) details() []proto.Message {
	f := e.failure
	return []proto.Message{
		rpc.Reason(
			rpc.ReasonViewFailed, "view", f.View, "event_id", f.EventID, "event_type", f.AggregateType+"."+f.EventType,
			"aggregate", f.aggregate(),
			"version", strconv.FormatInt(f.Version, 10), "rule", f.Rule, "expression", f.Expression, "reason", f.Reason,
		),
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{
			Type: string(rpc.ReasonViewFailed), Subject: "views/" + f.View,
			Description: fmt.Sprintf("event %s of %s: %s", f.EventID, f.aggregate(), f.Reason),
		}}},
	}
}

// roundedError reports that a row has an integer that JSON responses would round.
type roundedError struct{ key, column string }

func (e *roundedError) Error() string {
	return fmt.Sprintf(
		"column %q of the row %q has an integer that JSON cannot represent exactly (above 2^53): request fields "+
			"without this column",
		e.column, excerpt.Text(e.key, excerpt.Name),
	)
}

// percent returns the applied share of a journal sequence, below 100 until all of it is applied. Sequences themselves
// are not returned, because they would reveal how many events the other tenants of the journal have.
func percent(done, target uint64) int {
	if done >= target {
		return 100
	}
	return int(float64(done) / float64(target) * 100)
}

// fieldError names the invalid field of a request whose fields differ from those of [requestErrors].
type fieldError struct {
	field string
	error
}

func (e *fieldError) Unwrap() error { return e.error }

// inWatch names the field of a WatchRequest that is invalid.
func inWatch(err error) error {
	switch {
	case errors.Is(err, query.ErrFilter):
		return &fieldError{"filter", err}
	case errors.Is(err, query.ErrFields):
		return &fieldError{"fields", err}
	}
	return err
}

// requestErrors maps errors of invalid requests to the field that is invalid.
var requestErrors = []struct {
	err   error
	field string
}{
	{query.ErrFilter, "query.filter"},
	{query.ErrOrder, "query.order_by"},
	{query.ErrFields, "query.fields"},
	{query.ErrToken, "query.page_token"},
	{position.ErrInvalid, "min_position"},
	{position.ErrEpoch, "min_position"},
}

// exhausted returns the RPC error for a watcher that exceeds a bound.
func exhausted(err error, reason rpc.ErrorReason) error {
	return rpc.WithDetails(
		connect.NewError(connect.CodeResourceExhausted, err.Error()+": resume with the last position"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}, rpc.Reason(reason),
	)
}

// asConnectError maps the service's errors to RPC errors. No other place does.
func asConnectError(err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*connect.Error](err); known {
		return err
	}
	for _, of := range [...]func(error) error{viewError, storeError, watcherError, requestError} {
		if converted := of(err); converted != nil {
			return converted
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return connect.NewError(connect.CodeInternal, "the view could not be read").WithCause(err)
}

// viewError converts the reason why a view, or a row of it, cannot be read; nil: it is another error.
func viewError(err error) error {
	if building, ok := errors.AsType[*buildingError](err); ok {
		// Another node may have them: the gateway calls it.
		return later(building.Error(), nil, retryAfter, rpc.ReasonViewsBuilding)
	}
	if failed, ok := errors.AsType[*failedError](err); ok {
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, failed.Error()), failed.details()...)
	}
	if rounded, ok := errors.AsType[*roundedError](err); ok {
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, rounded.Error()),
			rpc.Reason(rpc.ReasonIntegerTooLarge, "column", rounded.column, "key",
				excerpt.Text(rounded.key, excerpt.Name)))
	}
	if errors.Is(err, errMoved) {
		return later(errMoved.Error()+": retry, and resume a watch with its last position", nil, retryAfter,
			rpc.ReasonViewsMoved)
	}
	return nil
}

// storeError converts an error of the store; nil: it is another error.
func storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrDamaged):
		// Another node may have them intact; this node rebuilds them.
		return later("the tenant's views are damaged and are being rebuilt: retry", err, retryAfter,
			rpc.ReasonViewsBuilding)
	case errors.Is(err, store.ErrFull):
		return later(store.ErrFull.Error()+": retry later", err, fullRetryAfter, rpc.ReasonViewsDiskFull)
	case errors.Is(err, store.ErrUnavailable):
		return later(store.ErrUnavailable.Error()+": retry", err, storeRetryAfter, rpc.ReasonViewsUnavailable)
	}
	return nil
}

// later returns the UNAVAILABLE error of a read that clients may retry after a delay; cause may be nil.
func later(message string, cause error, delay time.Duration, reason rpc.ErrorReason) error {
	unavailable := connect.NewError(connect.CodeUnavailable, message)
	if cause != nil {
		unavailable = unavailable.WithCause(cause)
	}
	return rpc.WithDetails(unavailable, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}, rpc.Reason(reason))
}

// watcherError converts the error of a watcher that exceeds a bound, or of a view that is behind the position of a
// request; nil: it is another error.
func watcherError(err error) error {
	behind, ok := errors.AsType[*behindError](err)
	switch {
	case errors.Is(err, errSlow):
		return exhausted(err, rpc.ReasonSlowConsumer)
	case errors.Is(err, errTooManyWatchers):
		return exhausted(err, rpc.ReasonTooManyWatchers)
	case ok:
		return rpc.WithDetails(
			connect.NewError(connect.CodeDeadlineExceeded, behind.Error()+": read without it, or retry"),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}, rpc.Reason(rpc.ReasonPositionNotReached),
		)
	}
	return nil
}

// requestError converts the error of an invalid field of a request; nil: it is another error.
func requestError(err error) error {
	for _, mistake := range requestErrors {
		if errors.Is(err, mistake.err) {
			field := mistake.field
			if named := (*fieldError)(nil); errors.As(err, &named) {
				field = named.field
			}
			return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, err.Error()),
				&errdetails.BadRequest{
					FieldViolations: []*errdetails.BadRequest_FieldViolation{
						{Field: field, Description: err.Error()},
					},
				})
		}
	}
	if errors.Is(err, query.ErrLongKey) {
		return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, err.Error()),
			rpc.Reason(rpc.ReasonPageTokenTooLong))
	}
	return nil
}
