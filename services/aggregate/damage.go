package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/rpc"
)

// damagedError reports that events of an aggregate are missing from the journal.
type damagedError struct {
	key aggregateKey
	// from and to are the versions that are missing or duplicated; 0 if unknown.
	from, to int64
}

func (e *damagedError) Error() string {
	which := "some of its events"
	switch {
	case e.from > 0 && e.from < e.to:
		which = fmt.Sprintf("its events of versions %d to %d", e.from, e.to)
	case e.from > 0:
		which = fmt.Sprintf("its event of version %d", e.from)
	}
	return fmt.Sprintf("the journal is damaged: %s %q cannot be read because the journal lacks %s", e.key.aggregateType,
		e.key.id, which)
}

// endMissing is the error text for clients and operators while the end of the journal is missing.
const endMissing = "acknowledged events at the end of the journal are missing: commands are rejected until an " +
	"operator accepts the loss"

// dataLoss returns the RPC error of a damaged aggregate or, if damaged is nil, of [journal.ErrEndMissing].
func dataLoss(err error, damaged *damagedError) error {
	if damaged == nil {
		return rpc.WithDetails(connect.NewError(connect.CodeDataLoss, endMissing).WithCause(err),
			rpc.Reason(rpc.ReasonJournalEndMissing))
	}
	return rpc.WithDetails(
		connect.NewError(connect.CodeDataLoss, damaged.Error()+": an operator must restore the journal").WithCause(err),
		rpc.Reason(
			rpc.ReasonAggregateDamaged, "aggregate_type", damaged.key.aggregateType, "aggregate_id", damaged.key.id,
			"first_version", fmt.Sprint(damaged.from), "last_version", fmt.Sprint(damaged.to),
		),
	)
}

// recheckInterval is the interval at which damage is checked again, and maxRechecks bounds the checks.
const recheckInterval, maxRechecks = 250 * time.Millisecond, 8

// recheckDamage waits and reports whether damage of an aggregate must be checked again: a NATS server that lost the
// leadership a moment ago, or has just become the leader, may return less than the cluster has stored. It returns
// false if the journal is known to be damaged.
func (s *Service) recheckDamage(ctx context.Context, attempt int) bool {
	if !s.journal.Replicated() || s.journal.Integrity().Damage() != nil || attempt >= maxRechecks {
		return false
	}
	select {
	case <-time.After(recheckInterval):
		return true
	case <-ctx.Done():
		return false
	}
}

// verifyNewest returns an error if an instance that has caught up may lack events of the aggregate: those of
// [Service.verifyAbsent] and of [journal.Journal.Confirm].
func (s *Service) verifyNewest(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	if err := s.verifyAbsent(ctx, key, by, i); err != nil {
		return err
	}
	return s.journal.Confirm(ctx)
}

// verifyAbsent returns a [*damagedError] if an instance that has caught up has no events although the journal has
// messages of the aggregate.
func (s *Service) verifyAbsent(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	for attempt := 0; i.version == 0; attempt++ {
		count, err := s.journal.Count(ctx, key.tenant, key.aggregateType, key.id)
		if err != nil || count <= uint64(len(i.skipped)) {
			return err
		}
		if attempt > 0 && !s.recheckDamage(ctx, attempt) {
			return &damagedError{key: key, from: 1, to: int64(count)}
		}
		if err := s.catchUp(ctx, key, by, i); err != nil { // another node may have appended them
			return err
		}
	}
	return nil
}

// errBehind reports that the journal has more events of an aggregate than were folded. Another node may have appended
// them.
var errBehind = errors.New("the aggregate has further events")

// verifyCount returns a [*damagedError] if the number of an aggregate's events in the journal differs from its version.
// It is used when the journal is known to be damaged, which may have cut off the aggregate's last events or made some
// unreadable. On errBehind the caller folds again first.
func (s *Service) verifyCount(ctx context.Context, key aggregateKey, i *instance) error {
	count, err := s.journal.Count(ctx, key.tenant, key.aggregateType, key.id)
	has := int64(count) - i.uncounted
	if err != nil || has == i.version {
		return err
	}
	if has > i.version && has != i.lastCount {
		i.lastCount = has
		return errBehind
	}
	i.snapshotted = event{max(has, i.version), i.sequence + 1} // the next commands check again
	return &damagedError{key: key, from: min(has, i.version) + 1, to: max(has, i.version)}
}
