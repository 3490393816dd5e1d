package store

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/headgate/headgate/model"
)

// Batch is what events do to a tenant's views, one after the other. Rows wait in it
// until all have been told, so that one that many events change is written once, and
// the database takes them together.
//
// Rows that wait read as they will once they are written: what the events make of
// each other does not depend on where a batch ends.
type Batch struct {
	read    func(ctx context.Context, view *model.View, key string) (model.Object, error)
	views   map[*model.View]map[string][]any // rows by key, as they are bound; nil: deleted
	cleared map[*model.View]struct{}         // whose rows in the database are removed
	states  map[string]ViewState             // records to write, by view
	to      Checkpoint                       // of the views in step; zero: it does not change
}

// NewBatch returns a batch without changes; read reads a row from the database, nil
// for none.
func NewBatch(read func(ctx context.Context, view *model.View, key string) (model.Object, error)) *Batch {
	return &Batch{read: read, views: map[*model.View]map[string][]any{}}
}

// Row returns the row of a view under key, nil for none.
func (b *Batch) Row(ctx context.Context, view *model.View, key string) (model.Object, error) {
	bound, waits := b.views[view][key]
	if _, cleared := b.cleared[view]; !waits && !cleared {
		return b.read(ctx, view, key)
	}
	if bound == nil {
		return nil, nil
	}
	values := make([]any, len(bound))
	for i, column := range view.Columns {
		var err error
		if values[i], err = Decode(column, bound[i]); err != nil {
			return nil, err
		}
	}
	return Object(view.Columns, values), nil
}

// Put makes or replaces a row.
func (b *Batch) Put(view *model.View, key string, row model.Object) error {
	bound := make([]any, len(view.Columns))
	for i, column := range view.Columns {
		var err error
		if bound[i], err = encode(view, column, row[column.Name]); err != nil {
			return err
		}
	}
	b.set(view, key, bound)
	return nil
}

// Delete removes a row, if there is one.
func (b *Batch) Delete(view *model.View, key string) { b.set(view, key, nil) }

// Clear removes all rows of a view.
func (b *Batch) Clear(view *model.View) {
	b.Discard(view)
	if b.cleared == nil {
		b.cleared = map[*model.View]struct{}{}
	}
	b.cleared[view] = struct{}{}
}

// Restart clears the views whose checkpoints are not to be trusted, and records that they begin
// anew. state is the one after [State.Distrust]. It is for implementations of [Store].
func (b *Batch) Restart(views []*model.View, state State, distrusted []string) {
	for _, name := range distrusted {
		if i := slices.IndexFunc(views, func(v *model.View) bool { return v.Name == name }); i >= 0 {
			b.Clear(views[i])
		}
		b.SetView(name, state.Views[name])
	}
}

// Discard forgets the changes of a view's rows.
func (b *Batch) Discard(view *model.View) { delete(b.views, view) }

// Advance moves the checkpoint of the views in step, which never moves back.
func (b *Batch) Advance(to Checkpoint) { b.to = to }

// SetView replaces a view's record.
func (b *Batch) SetView(name string, state ViewState) {
	if b.states == nil {
		b.states = map[string]ViewState{}
	}
	b.states[name] = state
}

// Empty reports whether nothing is to be written.
func (b *Batch) Empty() bool {
	return len(b.views) == 0 && len(b.cleared) == 0 && len(b.states) == 0 && b.to == Checkpoint{}
}

// Checkpoint returns where the views in step move to, zero if they do not move.
func (b *Batch) Checkpoint() Checkpoint { return b.to }

// Cleared yields the views whose rows are removed before the changes are written.
func (b *Batch) Cleared() iter.Seq[*model.View] { return maps.Keys(b.cleared) }

// States yields the records of views to write, by name; those that are not [ViewState.Recorded]
// are removed.
func (b *Batch) States() iter.Seq2[string, ViewState] { return maps.All(b.states) }

func (b *Batch) set(view *model.View, key string, bound []any) {
	rows := b.views[view]
	if rows == nil {
		rows = map[string][]any{}
		b.views[view] = rows
	}
	rows[key] = bound
}

// Row is a row as it is to be written: the values of the view's columns as they are
// bound.
type Row struct {
	Key    string
	Values []any
}

// Changes yields what there is to write in each view: rows to make or replace, and
// keys of rows to remove, both in the order of their keys.
func (b *Batch) Changes() iter.Seq2[*model.View, Changes] {
	return func(yield func(*model.View, Changes) bool) {
		for view, rows := range b.views {
			c := Changes{Puts: make([]Row, 0, len(rows))}
			for key, bound := range rows {
				if bound == nil {
					c.Deletes = append(c.Deletes, key)
				} else {
					c.Puts = append(c.Puts, Row{key, bound})
				}
			}
			slices.Sort(c.Deletes)
			slices.SortFunc(c.Puts, func(a, b Row) int { return cmp.Compare(a.Key, b.Key) })
			if !yield(view, c) {
				return
			}
		}
	}
}

// Changes is what there is to write in a view.
type Changes struct {
	Puts    []Row
	Deletes []string
}
