package store

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/headgate/headgate/model"
)

// Batch collects the effects of consecutive events on a tenant's views. Rows are held until all events are added, so
// that a row that many events change is written once, and the database receives all rows together.
//
// Reads return the held rows, so that the effects of events do not depend on the bounds of batches.
type Batch struct {
	read    func(ctx context.Context, view *model.View, key string) (model.Object, error)
	views   map[*model.View]map[string][]any // rows by key, as bound values; nil: deleted
	cleared map[*model.View]struct{}         // views whose rows in the database are removed
	states  map[string]ViewState             // records to write, by view
	to      Checkpoint                       // of the views in step; zero: unchanged
	begun   []string                         // entries of aggregates that begin with the batch's events
	fill    filling                          // of an index that lags
}

// NewBatch returns a batch without changes; read reads a row from the database and returns nil for none.
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

// Put inserts or replaces a row.
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

// Delete removes a row, if it exists.
func (b *Batch) Delete(view *model.View, key string) { b.set(view, key, nil) }

// Clear removes all rows of a view.
func (b *Batch) Clear(view *model.View) {
	b.Discard(view)
	if b.cleared == nil {
		b.cleared = map[*model.View]struct{}{}
	}
	b.cleared[view] = struct{}{}
}

// Restart clears the views whose checkpoints are not trusted, and records that they start from the beginning. state
// is the result of [State.Distrust]. It is for implementations of [Store].
func (b *Batch) Restart(views []*model.View, state State, distrusted []string) {
	for _, name := range distrusted {
		if i := slices.IndexFunc(views, func(v *model.View) bool { return v.Name == name }); i >= 0 {
			b.Clear(views[i])
		}
		b.SetView(name, state.Views[name])
	}
}

// Discard drops the changes of a view's rows.
func (b *Batch) Discard(view *model.View) { delete(b.views, view) }

// Advance sets the checkpoint of the views in step, which never decreases.
func (b *Batch) Advance(to Checkpoint) { b.to = to }

// SetView replaces a view's record.
func (b *Batch) SetView(name string, state ViewState) {
	if b.states == nil {
		b.states = map[string]ViewState{}
	}
	b.states[name] = state
}

// Empty reports whether the batch has no writes.
func (b *Batch) Empty() bool {
	return len(b.views) == 0 && len(b.cleared) == 0 && len(b.states) == 0 && b.to == Checkpoint{} && !b.Fills()
}

// Checkpoint returns the new checkpoint of the views in step, zero if it does not change.
func (b *Batch) Checkpoint() Checkpoint { return b.to }

// Cleared yields the views whose rows are removed before the changes are written.
func (b *Batch) Cleared() iter.Seq[*model.View] { return maps.Keys(b.cleared) }

// States yields the records of views to write, by name. Records that are not [ViewState.Recorded] are removed.
func (b *Batch) States() iter.Seq2[string, ViewState] { return maps.All(b.states) }

func (b *Batch) set(view *model.View, key string, bound []any) {
	rows := b.views[view]
	if rows == nil {
		rows = map[string][]any{}
		b.views[view] = rows
	}
	rows[key] = bound
}

// Row is a row to write: the values of the view's columns as they are bound.
type Row struct {
	Key    string
	Values []any
}

// Changes yields the writes of each view: rows to insert or replace, and keys of rows to remove, both ordered by key.
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

// Changes are the writes of a view.
type Changes struct {
	Puts    []Row
	Deletes []string
}
