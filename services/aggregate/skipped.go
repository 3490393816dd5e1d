package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
)

// skippedMessage is a message of the aggregate's subject that an operator has declared not to be an event.
type skippedMessage struct {
	Sequence uint64 `json:"sequence"`
	// Stored is the time at which it was stored, in nanoseconds since 1970.
	Stored int64 `json:"stored"`
}

// skip records a message that is skipped. Events are appended after it.
func (i *instance) skip(e *journal.UnreadableError) {
	chain := i.chain()
	chain.Pass(e.Version)
	i.claimed, i.sequence = chain.Claimed, e.Sequence
	i.skipped = append(i.skipped, skippedMessage{Sequence: e.Sequence, Stored: e.Stored.UnixNano()})
	i.uncounted++
}

func (i *instance) chain() journal.Chain {
	return journal.Chain{Version: i.version, Claimed: i.claimed}
}

// continues reports whether version is the version of the next event.
func (i *instance) continues(version int64) bool {
	chain := i.chain()
	return chain.Continues(version)
}

// confirmSkipped resets the instance if an operator has revoked a declaration that a message is not an event, so that
// folding reads the message again.
func (s *Service) confirmSkipped(ctx context.Context, key aggregateKey, i *instance) error {
	for _, p := range i.skipped {
		declared, err := s.journal.Declared(ctx,
			&journal.UnreadableError{Tenant: key.tenant, Sequence: p.Sequence, Stored: time.Unix(0, p.Stored)})
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

// unreadableError reports that a message of the aggregate is not an event and was not declared so.
type unreadableError struct {
	key       aggregateKey
	reference string // identifies the message for operators
}

func (e *unreadableError) Error() string {
	return fmt.Sprintf("%s %q cannot be read: a message of it in the journal is not an event (reference %s)",
		e.key.aggregateType, e.key.id, e.reference)
}

// unreadable returns err as an [*unreadableError] if reading the journal failed because of one. The reference does
// not reveal the sequence, since all tenants share the journal.
func (s *Service) unreadable(key aggregateKey, err error) error {
	if e, ok := errors.AsType[*journal.UnreadableError](err); ok {
		return &unreadableError{key: key, reference: s.positions.Format(key.tenant, e.Sequence)}
	}
	return err
}

// notAnEvent returns the RPC error of an [*unreadableError].
func notAnEvent(e *unreadableError) error {
	return rpc.WithDetails(
		connect.NewError(connect.CodeDataLoss,
			e.Error()+": an operator must declare it a non-event or restore the journal"),
		rpc.Reason(
			rpc.ReasonMessageUnreadable, "aggregate_type", e.key.aggregateType, "aggregate_id", e.key.id, "reference",
			e.reference,
		),
	)
}
