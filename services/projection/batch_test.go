package projection_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const everyType = `model: things
aggregates:
  thing:
    commands: {make: {emit: [{event: made, data: {}}]}}
    evolve: {made: {}}
views:
  things:
    columns: {s: {type: string, index: true}, i: int, d: double, b: bool, t: timestamp, j: json}
    on: {thing.made: {upsert: {s: '"x"'}}}
`

// step is the effect of an event: it makes one row from another, or removes one.
type step struct {
	key, from string
	row       model.Object // nil: from's
	remove    bool
}

func steps() *rapid.Generator[[]step] {
	key := rapid.SampledFrom([]string{"a", "b", "c", "nul \x00", "\uFFFE"})
	row := rapid.Custom(func(t *rapid.T) model.Object {
		pick := func(name string, values ...any) any { return rapid.SampledFrom(append(values, nil)).Draw(t, name) }
		return model.Object{
			"s": pick("s", "", "ü", "nul \x00", "\uFFFE0"),
			"i": pick("i", int64(0), int64(math.MinInt64), int64(math.MaxInt64)),
			"d": pick("d", 1.0, 0.1, -1e300, math.Inf(1), math.NaN()), "b": pick("b", true, false),
			"t": pick("t", "2026-01-01T00:00:00.000000000Z"),
			"j": pick("j", 1.0, int64(1), "x", []any{2.0}, map[string]any{"a": 0.5, "b": nil}),
		}
	})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		s := step{key: key.Draw(t, "key"), from: key.Draw(t, "from"), remove: rapid.Bool().Draw(t, "remove")}
		if rapid.Bool().Draw(t, "new") {
			s.row = row.Draw(t, "row")
		}
		return s
	}), 1, 40)
}

func TestBatch_RowsDoNotDependOnBatchBounds(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		m, err := model.Parse("things.yaml", []byte(everyType))
		if err != nil {
			t.Fatal(err)
		}
		open, view, tenant := newStore(t), m.Views()[0], natstest.Tenant(t, "acme")
		runs := 0
		// rows applies the steps to an empty store and returns its rows, and the rows that were read while applying.
		rows := func(t *rapid.T, all []step, batches []int) (held, read []any) {
			runs++
			s, err := open(t.Context(), tenant, m.Views(), fmt.Sprint(runs))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			for sequence := uint64(1); len(all) > 0; sequence++ {
				size := min(len(all), batches[sequence%uint64(len(batches))])
				err := s.Apply(t.Context(), func(b *store.Batch, _ store.State) error {
					b.Advance(store.Checkpoint{Sequence: sequence})
					for _, step := range all[:size] {
						row, err := b.Row(t.Context(), view, step.from)
						if err != nil {
							return err
						}
						read = append(read, row)
						if step.row != nil {
							row = step.row
						}
						if step.remove || row == nil {
							b.Delete(view, step.key)
						} else if err := b.Put(view, step.key, row); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				all = all[size:]
			}
			plan := query.Plan{OrderBy: fmt.Sprintf("%q", query.KeyColumn), Limit: 100, Columns: view.Columns}
			if _, err := s.Query(t.Context(), view, plan, func(values, _ []any) error {
				held = append(held, append([]any{}, values...))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return held, read
		}
		rapid.Check(t, func(t *rapid.T) {
			all := steps().Draw(t, "steps")
			sizes := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 5).Draw(t, "batches")
			held, read := rows(t, all, []int{1})
			heldTogether, readTogether := rows(t, all, sizes)
			if diff := cmp.Diff(held, heldTogether); diff != "" {
				t.Errorf("rows (-single steps +batch): %s", diff)
			}
			if diff := cmp.Diff(read, readTogether); diff != "" {
				t.Errorf("intermediate reads (-single steps +batch): %s", diff)
			}
		})
	})
}
