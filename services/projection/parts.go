package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// Failure is the event that a view cannot apply, and the reason.
type Failure struct {
	// View is the view's name.
	View string `json:"view"`
	// EventID, EventType and Sequence identify the event; Version is its version within its aggregate. The sequence
	// must not be shown to tenants.
	EventID   string `json:"event_id"`
	EventType string `json:"event_type"`
	Sequence  uint64 `json:"sequence"`
	Version   int64  `json:"version"`
	// AggregateType and AggregateID identify the event's aggregate.
	AggregateType string `json:"aggregate_type"`
	AggregateID   string `json:"aggregate_id"`
	// Rule is the rule of the model that fails, and Expression its expression; "": the database rejects the row.
	Rule       string `json:"rule,omitempty"`
	Expression string `json:"expression,omitempty"`
	// Reason is the reason, without internal details.
	Reason string `json:"reason"`
	// Since is when the view began to fail at the event; zero: unknown, since a version that does not store it detected
	// the failure.
	Since time.Time `json:"since,omitzero"`
}

// continues sets Since to that of the failure before, which may be nil, if the view failed at the same event then.
func (f *Failure) continues(before *Failure) {
	if before != nil && before.EventID == f.EventID && before.Sequence == f.Sequence {
		f.Since = before.Since
	}
}

// since returns Since as a protobuf message; nil: unknown.
func (f *Failure) since() *timestamppb.Timestamp {
	if f.Since.IsZero() {
		return nil
	}
	return timestamppb.New(f.Since)
}

// maxReason and maxExpression bound the texts of a failure in bytes: an error's details have 1.5 KiB.
const maxReason, maxExpression = 300, 200

// newFailure returns the failure of a view to apply an event.
func newFailure(view *model.View, event *prepared, err error) *Failure {
	f := &Failure{
		View:          view.Name,
		EventID:       event.meta.EventID,
		EventType:     event.ref.Event,
		Sequence:      event.sequence,
		Version:       event.meta.Version,
		AggregateType: event.meta.AggregateType,
		AggregateID:   event.meta.AggregateID,
		Since:         time.Now().UTC(),
	}
	if rule, ok := errors.AsType[*model.EvaluationError](err); ok {
		f.Rule, f.Reason = rule.ID, strings.TrimPrefix(rule.Err.Error(), model.ErrEvaluation.Error()+": ")
	}
	expression, isExpression := errors.AsType[*model.ExpressionError](err)
	rejected, isRejected := errors.AsType[*store.RejectedError](err)
	switch {
	case isExpression:
		f.Expression, f.Reason = excerpt.Text(expression.Expression, maxExpression), expression.Err.Error()
	case isRejected:
		f.Reason = rejected.Reason
	case f.Reason == "":
		f.Reason = err.Error()
	}
	f.Reason = excerpt.Text(f.Reason, maxReason)
	return f
}

// aggregate returns the event's aggregate as text.
func (f *Failure) aggregate() string {
	return f.AggregateType + "/" + excerpt.Text(f.AggregateID, excerpt.Name)
}

// text returns the stored form of the failure.
func (f *Failure) text() string {
	data, err := json.Marshal(f)
	if err != nil {
		return f.Reason // a struct of strings and numbers can be encoded
	}
	return string(data)
}

// parseFailure returns the failure in a view's state; nil: none.
func parseFailure(view string, state store.ViewState) *Failure {
	if state.Failure == "" {
		return nil
	}
	f := &Failure{}
	if err := json.Unmarshal([]byte(state.Failure), f); err != nil {
		return &Failure{View: view, Reason: state.Failure}
	}
	return f
}

// part is one view of a follower.
type part struct {
	view *model.View
	// detached is set while the view is not in step with the others. It may be stale where several nodes follow a
	// tenant in one database.
	detached atomic.Bool

	// The fields below are guarded by follower.mu.

	state   store.ViewState
	failure *Failure
	catcher *catcher // nil: the view is in step
}

func newParts(m *model.Model) []*part {
	if m == nil {
		return nil
	}
	parts := make([]*part, len(m.Views()))
	for i, view := range m.Views() {
		parts[i] = &part{view: view}
	}
	return parts
}

// isViewFailure reports whether an error of applying an event is deterministic: another attempt of the view would
// fail too.
func isViewFailure(ctx context.Context, err error) bool {
	return ctx.Err() == nil &&
		(errors.Is(err, model.ErrEvaluation) || errors.Is(err, errUnreadable) || errors.Is(err, errUnstorable))
}

var (
	// errUnreadable reports that the model cannot read an event's data.
	errUnreadable = errors.New("the event's data cannot be read")
	// errUnstorable reports that a row has a value that cannot be stored.
	errUnstorable = errors.New("the row cannot be stored")
	// errStaleSkips reports that rows depend on skip records that the node has not received.
	errStaleSkips = errors.New("another node has newer skips of the view's events")
)

// adopt updates the parts to the state of the views in the store after a change: it starts catchers for detached
// views, retires those of views in step again, and ends watchers of views that fail or are rebuilt. The caller holds
// f.applying.
func (f *follower) adopt(state store.State) {
	if state.Views == nil && !f.recorded {
		return
	}
	f.recorded = state.Views != nil
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.parts {
		next := state.View(p.view.Name)
		before := p.state
		p.state = next
		p.detached.Store(next.Detached)
		if next.Failure != before.Failure {
			p.failure = parseFailure(p.view.Name, next)
		}
		switch {
		case next.Failure != "" && next.Failure != before.Failure:
			f.logger().Error().Str("view", p.view.Name).Any("failure", p.failure).Msg(
				"a view cannot apply an event; the tenant's other views continue",
			)
			f.hub.end(p.view.Name, &failedError{p.failure})
		case next.Skips != before.Skips || next.Detached && (!before.Detached || next.Sequence < before.Sequence):
			f.hub.end(p.view.Name, errMoved)
		}
		switch {
		case next.Detached && p.catcher == nil && !f.halted && f.tail != nil:
			p.catcher = f.catch(i)
		case next.Detached && p.catcher != nil && before.Failure != "" && next.Failure == "":
			p.catcher.retry() // the catcher waits, since another node may have followed the skip
		case !next.Detached && p.catcher != nil:
			f.retired = append(f.retired, p.catcher)
			p.catcher = nil
		}
	}
	f.notify()
	f.onChange(f)
}

// align adds to a batch that views follow the skip records that the node knows, and returns the resulting state. A
// view whose rows were made with other records is rebuilt. refreshed states that the records have just been read:
// records that rows depend on and that are missing are lost. Error: errStaleSkips.
func (f *follower) align(batch *store.Batch, state store.State, refreshed bool) (store.State, error) {
	if state.Views == nil && !f.skips.any(f.tenant) {
		return state, nil
	}
	for _, p := range f.parts {
		known, now := f.skips.of(f.tenant, p.view.Fingerprint()), state.View(p.view.Name)
		next := now
		switch {
		case known.at() < now.Skips && !refreshed:
			return state, errStaleSkips
		case known.at() < now.Skips, known.changedUpTo(now.Sequence, now.Skips):
			batch.Clear(p.view)
			next = store.ViewState{Detached: true, Skips: known.at()}
		case known.at() > now.Skips:
			next.Skips, next.Failure = known.at(), ""
		}
		if next.Detached && next.Failure == "" && next.Sequence >= state.Sequence {
			next.Detached, next.Checkpoint = false, state.Checkpoint
		}
		if next != now {
			state = setView(batch, state, p.view.Name, next)
		}
	}
	return state, nil
}

// setView writes a view's record, and returns the state with it.
func setView(batch *store.Batch, state store.State, view string, next store.ViewState) store.State {
	batch.SetView(view, next)
	state.Views = maps.Clone(state.Views)
	if state.Views == nil {
		state.Views = map[string]store.ViewState{}
	}
	state.Views[view] = next
	return state
}

// change changes the rows after aligning the views with the skip records that the node knows. The caller holds
// f.applying.
func (f *follower) change(ctx context.Context, change func(batch *store.Batch, state store.State) error) error {
	for refreshed := false; ; refreshed = true {
		err := f.rows.Apply(ctx, func(batch *store.Batch, state store.State) error {
			state, err := f.align(batch, state, refreshed)
			if err != nil {
				return err
			}
			return change(batch, state)
		})
		if refreshed || !errors.Is(err, errStaleSkips) {
			return err
		}
		if err := f.skips.refresh(ctx, f.tenant); err != nil {
			return err
		}
	}
}

// aligned returns the state after aligning the views with the skip records that the node knows. The caller holds
// f.applying.
func (f *follower) aligned(ctx context.Context) (store.State, error) {
	state, err := f.rows.State(ctx)
	if err != nil || state.Views == nil && !f.skips.any(f.tenant) {
		return state, err
	}
	var would store.Batch
	if _, err := f.align(&would, state, false); err == nil && would.Empty() {
		return state, nil
	}
	err = f.change(ctx, func(_ *store.Batch, aligned store.State) error {
		state = aligned
		return nil
	})
	return state, err
}

// catching reports whether a view is detached and has not failed.
func (f *follower) catching() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.parts {
		if p.state.Detached && p.failure == nil {
			return true
		}
	}
	return false
}

// failures returns the failures of the views.
func (f *follower) failures() []*Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*Failure
	for _, p := range f.parts {
		if p.failure != nil {
			out = append(out, p.failure)
		}
	}
	return out
}

// part returns the part of a view; nil: the follower has no view of that name.
func (f *follower) part(view string) *part {
	for _, p := range f.parts {
		if p.view.Name == view {
			return p
		}
	}
	return nil
}

// viewState returns the known state of a view. Error: the reason why the view cannot be read, a [*failedError] or a
// [*buildingError].
func (f *follower) viewState(view string) (store.ViewState, error) {
	p := f.part(view)
	if p == nil {
		return store.ViewState{}, fmt.Errorf("the model has no view %q", view)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.state, f.readable(p)
}

// readable returns the reason why a view cannot be read; nil: it can. The caller holds f.mu.
func (f *follower) readable(p *part) error {
	switch {
	case p.failure != nil:
		return &failedError{p.failure}
	case p.state.Detached:
		return &buildingError{done: p.state.Sequence, target: max(f.checkpoint, p.state.Sequence+1), view: p.view.Name}
	}
	return nil
}

// stateError returns the reason why the rows of a view in a state must not be returned; nil: they may.
func stateError(view *model.View, state store.ViewState) error {
	switch {
	case state.Failure != "":
		return &failedError{parseFailure(view.Name, state)}
	case state.Detached:
		return &buildingError{done: state.Sequence, target: state.Sequence + 1, view: view.Name}
	}
	return nil
}

// fingerprint identifies what a view's rows are made from: its definition and the skips.
func (f *follower) fingerprint(view *model.View) uint64 {
	state, _ := f.viewState(view.Name)
	const odd = 0x9E3779B97F4A7C15
	return view.Fingerprint() ^ state.Skips*odd
}

// skipped returns the number of skipped events of a view.
func (f *follower) skipped(view *model.View, state store.ViewState) int {
	if state.Skips == 0 {
		return 0
	}
	return f.skips.of(f.tenant, view.Fingerprint()).active(state.Sequence)
}

// followSkips aligns the views with the skip records that the node knows.
func (f *follower) followSkips() {
	f.readAgain()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.parts {
		if p.catcher != nil {
			p.catcher.retry()
		}
	}
}
