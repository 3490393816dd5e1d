package projection

import (
	"cmp"
	"errors"
	"slices"

	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/prometheus/client_golang/prometheus"
)

// errWentBack says that the rows are of an earlier checkpoint than the events of a batch follow.
var errWentBack = errors.New("the views' database has an earlier checkpoint than before")

// restoredMetric counts checkpoints that went back.
var restoredMetric = prometheus.NewDesc("headgate_projection_restored_total", "Times that a tenant's views were found at an earlier checkpoint than before, as after a restore or a failover of their database.", nil, nil)

// span is a range of journal sequences: those after from, up to and including to.
type span struct{ from, to uint64 }

func (s span) has(sequence uint64) bool { return s.from < sequence && sequence <= s.to }

// follows returns nil if a batch can be applied to views in a state. Otherwise events between the
// state and the batch are missing in the rows, [errWentBack], or the rows were made from another
// journal, [tail.ErrDiverged]. It costs no request: the batch knows the event before its first one.
func (b *viewBatch) follows(state store.State) error {
	if state.Sequence < b.after.Sequence {
		b.follower.wentBack(state.Sequence)
		b.follower.readAgain()
		return errWentBack
	}
	here := b.after // the batch's event at the state's checkpoint, as far as the batch has it
	if state.Sequence > here.Sequence {
		n, found := slices.BinarySearchFunc(b.events, state.Sequence, func(event prepared, sequence uint64) int {
			return cmp.Compare(event.sequence, sequence)
		})
		if !found {
			return nil
		}
		here = store.Checkpoint{Sequence: state.Sequence, EventID: b.events[n].meta.EventID}
	}
	if here.EventID != "" && state.EventID != "" && here.EventID != state.EventID {
		return tail.ErrDiverged
	}
	return nil
}

// wentBack notes that the rows have an earlier checkpoint than the follower knows: their database
// was restored, or a replica without its last transactions has become the primary. It returns false
// if they do not, or that is noted. The views are not shown before they have followed the journal to
// where they were; watchers end, and receive all rows when they come back with a position that was
// lost. The caller does not hold f.mu.
func (f *follower) wentBack(to uint64) bool {
	f.mu.Lock()
	from := f.checkpoint
	if from <= to {
		f.mu.Unlock()
		return false
	}
	f.checkpoint, f.target = to, max(f.target, from)
	if f.lost.to > 0 {
		f.lost = span{min(f.lost.from, to), max(f.lost.to, from)}
	} else {
		f.lost = span{to, from}
	}
	f.notify()
	f.mu.Unlock()
	f.hub.endAll(errMoved)
	f.logger().Error().Uint64("checkpoint", to).Uint64("before", from).
		Msg("the tenant's views are at an earlier checkpoint than before: their database was restored, or has failed over to a replica without its last transactions; they follow the journal again from there")
	f.restored()
	return true
}

// readBack returns the error of a read whose rows have an earlier checkpoint than they must have.
func (f *follower) readBack(state store.ViewState, least uint64) error {
	if f.wentBack(state.Sequence) {
		f.readAgain()
	}
	return &buildingError{done: state.Sequence, target: least, restored: true}
}

// journalLost reports whether an error says that the journal has lost events which the rows have. An
// operator has to accept the loss; until then the rows are retained, and nothing is applied to them.
func journalLost(err error) bool {
	return errors.Is(err, tail.ErrShorter) || errors.Is(err, tail.ErrDiverged)
}

// readAgain has the events after the rows' checkpoint read again.
func (f *follower) readAgain() {
	if subscription := f.subscription.Load(); subscription != nil {
		subscription.Reset()
	}
}

// lostPosition reports whether a position of a client may be of rows that were lost when the database
// went back.
func (f *follower) lostPosition(sequence uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost.has(sequence)
}
