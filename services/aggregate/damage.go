package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/internal/rpc"
)

// damagedError says that the journal does not have all events of an aggregate.
type damagedError struct {
	key aggregateKey
	// from and to are the versions that are missing, or occur twice; 0: not known which.
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
	return fmt.Sprintf("the journal is damaged: %s %q cannot be read, since the journal does not have %s in order", e.key.aggregateType, e.key.id, which)
}

// endMissing is what clients and operators read while the journal's end is missing.
const endMissing = "the journal has lost acknowledged events at its end: no command is taken until an operator accepts the loss"

// dataLoss renders an error of a damaged aggregate, or without one [backbone.ErrEndMissing].
func dataLoss(err error, damaged *damagedError) error {
	if damaged == nil {
		return rpc.WithDetails(connect.NewError(connect.CodeDataLoss, endMissing).WithCause(err),
			rpc.Reason("JOURNAL_END_MISSING"))
	}
	return rpc.WithDetails(connect.NewError(connect.CodeDataLoss, damaged.Error()+": an operator has to restore the journal").WithCause(err),
		rpc.Reason("AGGREGATE_DAMAGED", "aggregate_type", damaged.key.aggregateType, "aggregate_id", damaged.key.id,
			"first_version", fmt.Sprint(damaged.from), "last_version", fmt.Sprint(damaged.to)))
}

// doubtPause is the interval at which doubtful damage is checked again, and maxDoubts the number of
// checks.
const doubtPause, maxDoubts = 250 * time.Millisecond, 8

// doubted reports whether damage of an aggregate has to be checked again, after a pause: a
// server of a cluster that led until a moment ago, or that has just become the leader, may answer
// less than the cluster has. Not where the journal is known to be damaged.
func (s *Service) doubted(ctx context.Context, attempt int) bool {
	if !s.journal.Replicated() || s.journal.Integrity().Damage() != nil || attempt >= maxDoubts {
		return false
	}
	select {
	case <-time.After(doubtPause):
		return true
	case <-ctx.Done():
		return false
	}
}

// absent returns a [*damagedError] if an instance that has caught up has no events, and the
// journal has some that cannot be read.
func (s *Service) absent(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	for attempt := 0; i.version == 0; attempt++ {
		count, err := s.journal.Count(ctx, key.tenant, key.aggregateType, key.id)
		if err != nil || count <= uint64(len(i.passed)) {
			return err
		}
		if attempt > 0 && !s.doubted(ctx, attempt) {
			return &damagedError{key: key, from: 1, to: int64(count)} //nolint:gosec // far below 2^63
		}
		if err := s.catchUp(ctx, key, by, i); err != nil { // another node may have appended them
			return err
		}
	}
	return nil
}

// errBehind says that the journal has more events of an aggregate than were folded. Another node
// may have appended them.
var errBehind = errors.New("the aggregate has further events")

// counted returns a [*damagedError] if the journal does not have as many events of an aggregate
// as its version says: the journal is known to be damaged, and may end before the aggregate does,
// or have events that cannot be read. errBehind: fold again first.
func (s *Service) counted(ctx context.Context, key aggregateKey, i *instance) error {
	count, err := s.journal.Count(ctx, key.tenant, key.aggregateType, key.id)
	has := int64(count) - i.beside //nolint:gosec // far below 2^63
	if err != nil || has == i.version {
		return err
	}
	if has > i.version && has != i.counted {
		i.counted = has
		return errBehind
	}
	i.known = event{max(has, i.version), i.sequence + 1} // commands look again
	return &damagedError{key: key, from: min(has, i.version) + 1, to: max(has, i.version)}
}
