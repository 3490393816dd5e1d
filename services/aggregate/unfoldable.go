package aggregate

import (
	"errors"
	"fmt"
	"strconv"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
)

// unfoldableError reports that the model cannot apply a stored event to the state of its aggregate: the data, of
// another producer or of an earlier model, does not fit the rule or an upcast.
type unfoldableError struct {
	event journal.Event
	err   error
}

func (e *unfoldableError) Error() string {
	return fmt.Sprintf("the model cannot apply the event %s.%s (%s, version %d) of %s/%s: %v",
		e.event.AggregateType, e.event.Type, e.event.ID, e.event.Version, e.event.AggregateType,
		excerpt.Text(e.event.AggregateID, excerpt.Name), e.err)
}

func (e *unfoldableError) Unwrap() error { return e.err }

// notApplicable returns the RPC error of an [*unfoldableError].
func notApplicable(e *unfoldableError) error {
	id, text := "", excerpt.Text(e.Error(), maxReason)
	if rule, ok := errors.AsType[*model.EvaluationError](e.err); ok {
		id = rule.ID
	}
	aggregate := e.event.AggregateType + "/" + excerpt.Text(e.event.AggregateID, excerpt.Name)
	return rpc.WithDetails(
		connect.NewError(connect.CodeFailedPrecondition, text+": correct the rule in the model, or add an upcast"),
		&errdetails.PreconditionFailure{
			Violations: []*errdetails.PreconditionFailure_Violation{
				{Type: "EVENT", Subject: aggregate, Description: text},
			},
		},
		rpc.Reason(
			rpc.ReasonEventNotApplicable, "aggregate", aggregate, "event_id", e.event.ID, "event_type",
			e.event.AggregateType+"."+e.event.Type,
			"version", strconv.FormatInt(e.event.Version, 10), "rule", id,
		),
	)
}
