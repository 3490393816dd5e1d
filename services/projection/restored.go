package projection

import (
	"cmp"
	"errors"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/services/projection/store"
)

// errWentBack reports that the rows are of an earlier checkpoint than the one that a batch follows.
var errWentBack = errors.New("the views' database has an earlier checkpoint than before")

// restoredMetric counts checkpoints that went back.
var restoredMetric = prometheus.NewDesc(
	"headgate_projection_restored_total",
	"Times that a tenant's views were at an earlier checkpoint than before, for example after a restore or failover "+
		"of their database.",
	nil, nil,
)

// sequenceRange is a range of journal sequences: after from, up to and including to.
type sequenceRange struct{ from, to uint64 }

func (s sequenceRange) has(sequence uint64) bool { return s.from < sequence && sequence <= s.to }

// follows returns nil if a batch can be applied to views in a state. [errWentBack]: events between the state and the
// batch are missing in the rows. [tail.ErrDiverged]: the rows were made from another journal. It needs no request,
// since the batch knows the event before its first one.
func (b *viewBatch) follows(state store.State) error {
	if state.Sequence < b.after.Sequence {
		b.follower.wentBack(state.Sequence)
		b.follower.readAgain()
		return errWentBack
	}
	here := b.after // the batch's event at the state's checkpoint, if the batch has it
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

// wentBack handles rows at an earlier checkpoint than the follower knows: their database was restored, or a replica
// without its last transactions has become the primary. The views are hidden until they have caught up to their
// former checkpoint; watchers end, and a client that resumes with a lost position receives all rows. It returns false
// if the checkpoint is not earlier, or was handled before. The caller does not hold f.mu.
func (f *follower) wentBack(to uint64) bool {
	f.mu.Lock()
	from := f.checkpoint
	if from <= to {
		f.mu.Unlock()
		return false
	}
	f.checkpoint, f.target = to, max(f.target, from)
	if f.lost.to > 0 {
		f.lost = sequenceRange{min(f.lost.from, to), max(f.lost.to, from)}
	} else {
		f.lost = sequenceRange{to, from}
	}
	f.notify()
	f.mu.Unlock()
	f.hub.endAll(errMoved)
	f.logger().Error().Uint64("checkpoint", to).Uint64("before", from).
		Msg(
			"the views' checkpoint went back, since their database was restored or has failed over to a replica " +
				"without its last transactions; catching up again",
		)
	f.onRestored()
	return true
}

// readBack returns the error of a read whose rows have an earlier checkpoint than required.
func (f *follower) readBack(state store.ViewState, least uint64) error {
	if f.wentBack(state.Sequence) {
		f.readAgain()
	}
	return &buildingError{done: state.Sequence, target: least, restored: true}
}

// journalLost reports whether an error means that the journal has lost events which the rows contain. Until an
// operator accepts the loss, the rows are retained and no event is applied.
func journalLost(err error) bool {
	return errors.Is(err, tail.ErrShorter) || errors.Is(err, tail.ErrDiverged)
}

// readAgain makes the tail read the events after the rows' checkpoint again.
func (f *follower) readAgain() {
	if subscription := f.subscription.Load(); subscription != nil {
		subscription.Reset()
	}
}

// lostPosition reports whether a client's position may refer to rows that were lost when the database went back.
func (f *follower) lostPosition(sequence uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost.has(sequence)
}
