package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/internal/rpc"
)

// passed is a message of the aggregate's subject that an operator has declared no event.
type passed struct {
	Sequence uint64 `json:"sequence"`
	// Stored is when it was stored, in nanoseconds since 1970.
	Stored int64 `json:"stored"`
}

// pass notes a message that is passed over. Events are appended after it.
func (i *instance) pass(e *backbone.UnreadableError) {
	chain := i.chain()
	chain.Pass(e.Version)
	i.claimed, i.sequence = chain.Claimed, e.Sequence
	i.passed = append(i.passed, passed{Sequence: e.Sequence, Stored: e.Stored.UnixNano()})
	i.beside++
}

func (i *instance) chain() backbone.Chain {
	return backbone.Chain{Version: i.version, Claimed: i.claimed}
}

// continues reports whether an event of a version is the next.
func (i *instance) continues(version int64) bool {
	chain := i.chain()
	return chain.Continues(version)
}

// confirmPassed forgets what was folded if an operator has revoked that a message is no event, so
// that it is met again.
func (s *Service) confirmPassed(ctx context.Context, key aggregateKey, i *instance) error {
	for _, p := range i.passed {
		declared, err := s.journal.Declared(ctx, &backbone.UnreadableError{Tenant: key.tenant, Sequence: p.Sequence, Stored: time.Unix(0, p.Stored)})
		if err != nil {
			return err
		}
		if !declared {
			i.forget()
			return nil
		}
	}
	return nil
}

// unreadableError says that a message of the aggregate is no event, and was not declared so.
type unreadableError struct {
	key       aggregateKey
	reference string // of the message, for operators
}

func (e *unreadableError) Error() string {
	return fmt.Sprintf("%s %q cannot be read: a message of it in the journal is no event (reference %s)", e.key.aggregateType, e.key.id, e.reference)
}

// unreadable returns an error of reading the journal as an [*unreadableError], if it is one. The
// reference does not reveal the sequence: the journal is shared by all tenants.
func (s *Service) unreadable(key aggregateKey, err error) error {
	if e, ok := errors.AsType[*backbone.UnreadableError](err); ok {
		return &unreadableError{key: key, reference: s.positions.Format(key.tenant, e.Sequence)}
	}
	return err
}

// notAnEvent renders an [*unreadableError].
func notAnEvent(e *unreadableError) error {
	return rpc.WithDetails(connect.NewError(connect.CodeDataLoss, e.Error()+": an operator has to declare it no event, or to restore the journal"),
		rpc.Reason("MESSAGE_UNREADABLE", "aggregate_type", e.key.aggregateType, "aggregate_id", e.key.id, "reference", e.reference))
}
