package store

// Checkpoint is how far views have followed the journal.
type Checkpoint struct {
	// Sequence is the journal sequence of the tenant's last event that was applied or passed over,
	// 0 for none.
	Sequence uint64
	// EventID is that event's id; "" if it is not known: there is none, or a version that does not
	// store ids applied it.
	EventID string
}

// State is how far a tenant's views have followed the journal. Views are in step, at one
// checkpoint, which costs one write for all of them. A view that could not apply an event is
// apart: it has a checkpoint of its own until it has caught up.
type State struct {
	// Checkpoint is that of the views in step.
	Checkpoint
	// Views are the views with a record, by name; nil: every view is in step, and has followed no
	// skips.
	Views map[string]ViewState
}

// ViewState is a view's record.
type ViewState struct {
	// Checkpoint is the view's own if it is apart, and otherwise that of the views in step.
	Checkpoint
	// Apart says that the view has a checkpoint of its own.
	Apart bool
	// Skips is the revision of the view's skip records that its rows follow; 0: there were none.
	Skips uint64
	// Failure describes the event after the checkpoint that the view cannot apply, in the form that
	// the caller of [Batch.SetView] chose; "": it does not fail.
	Failure string
}

// View returns a view's state.
func (s State) View(name string) ViewState {
	v, ok := s.Views[name]
	if !ok || !v.Apart {
		v.Checkpoint = s.Checkpoint
	}
	return v
}

// Recorded reports whether a view in this state has a record.
func (v ViewState) Recorded() bool { return v.Apart || v.Skips > 0 }

// Distrust returns the state without the checkpoints of views that are apart: a version that does
// not know them has applied events to all views. Their rows must be made anew. It is for
// implementations of [Store].
func (s State) Distrust() (_ State, apart []string) {
	for name, v := range s.Views {
		if v.Apart {
			s.Views[name] = ViewState{Apart: true}
			apart = append(apart, name)
		}
	}
	return s, apart
}
