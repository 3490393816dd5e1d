package store

// Checkpoint is a position of views in the journal.
type Checkpoint struct {
	// Sequence is the journal sequence of the tenant's last event that was applied or skipped, 0 for none.
	Sequence uint64
	// EventID is that event's id; "" if it is unknown: there is none, or a version that does not store ids applied
	// it.
	EventID string
}

// State is the progress of a tenant's views. Views in step share one checkpoint, which costs one write for all of
// them. A view that could not apply an event is detached: it has a separate checkpoint until it has caught up.
type State struct {
	// Checkpoint is the checkpoint of the views in step.
	Checkpoint
	// Views are the views with a record, by name; nil: every view is in step, and has followed no skips.
	Views map[string]ViewState
}

// ViewState is a view's record.
type ViewState struct {
	// Checkpoint is the view's checkpoint if it is detached, otherwise the checkpoint of the views in step.
	Checkpoint
	// Detached is set if the view has a separate checkpoint.
	Detached bool
	// Skips is the KV revision of the view's skip records that its rows follow; 0: there were none.
	Skips uint64
	// Failure describes the event after the checkpoint that the view cannot apply, in a form that the caller of
	// [Batch.SetView] chooses; "": the view does not fail.
	Failure string
}

// View returns a view's state.
func (s State) View(name string) ViewState {
	v, ok := s.Views[name]
	if !ok || !v.Detached {
		v.Checkpoint = s.Checkpoint
	}
	return v
}

// Recorded reports whether a view in this state has a record.
func (v ViewState) Recorded() bool { return v.Detached || v.Skips > 0 }

// Distrust returns the state without the checkpoints of detached views, which must be rebuilt because a version that
// does not know about detached views has applied events to all views. It is for implementations of [Store].
func (s State) Distrust() (_ State, detached []string) {
	for name, v := range s.Views {
		if v.Detached {
			s.Views[name] = ViewState{Detached: true}
			detached = append(detached, name)
		}
	}
	return s, detached
}
