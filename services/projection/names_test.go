package projection_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// Names that a model may use and that databases, or this program, reserve for another use.
var (
	clashingViews = []string{
		"order", "order_item", "order_pkey", "order_key", "order_item_state", "order_tenant_item_state_key_idx",
		"checkpoint", "sqlite_master", "select", "t0", "k", "r", "found", "page",
		"v" + strings.Repeat("x", 57) + "_a", "v" + strings.Repeat("x", 57) + "_b", strings.Repeat("y", 62) + "a",
		strings.Repeat("y", 62) + "b",
	}
	clashingColumns = []string{
		"item_state", "state", "xmin", "xmax", "cmin", "cmax", "ctid", "oid", "tableoid", "rowid", "select", "order",
		"user", "group", "key", "tenant", "index", "default",
		"t0", "t1", "t2", "k", "r", "v", "found", "null", "true", "false", "page", "sequence", "origin",
		strings.Repeat("z", 63),
	}
)

// Every view and column that a model may name is stored, indexed, filtered and ordered by, and none clashes with
// another.
func TestStore_NamesDoNotClash(t *testing.T) {
	if testing.Short() {
		t.Skip("many names, no concurrency")
	}
	var text strings.Builder
	text.WriteString(
		"model: names\naggregates: {a: {commands: {make: {emit: [{event: made, data: {}}]}}, evolve: {made: " +
			"{}}}}\nviews:\n",
	)
	for _, view := range clashingViews {
		fmt.Fprintf(&text, "  %q:\n    columns:\n", view)
		for _, column := range clashingColumns {
			fmt.Fprintf(&text, "      %q: {type: string, index: true}\n", column)
		}
		text.WriteString("    on: {a.made: {upsert: {}}}\n")
	}
	m, err := model.Parse("names.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		open := newStore(t)
		for range 2 { // created, and opened again
			s, err := open(t.Context(), natstest.Tenant(t, "acme"), m.Views(), "origin")
			if err != nil {
				t.Fatal(err)
			}
			// Each column orders the rows differently.
			value := func(view, column string, row int) string {
				at := slices.Index(clashingColumns, column)
				return fmt.Sprintf("%d %s %s", (row+at)%3, view, column)
			}
			err = s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
				batch.Advance(store.Checkpoint{Sequence: 1})
				for _, view := range m.Views() {
					for row := range 3 {
						object := model.Object{}
						for _, column := range view.Columns {
							object[column.Name] = value(view.Name, column.Name, row)
						}
						if err := batch.Put(view, fmt.Sprintf("k%d", row), object); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, view := range m.Views() {
				for at, column := range view.Columns {
					request := query.Request{
						OrderBy: column.Name + " desc, item_state",
						Filter: fmt.Sprintf(`%q:* AND %s != "%s"`, column.Name, column.Name,
							value(view.Name, column.Name, 0)),
					}
					plan, err := query.Compile(view, request, s.Dialect())
					if err != nil {
						t.Fatal(err)
					}
					var got, want []string
					_, err = s.Query(t.Context(), view, plan, func(values, _ []any) error {
						got = append(got, values[at].(string))
						return nil
					})
					for row := 1; row < 3; row++ {
						want = append(want, value(view.Name, column.Name, row))
					}
					slices.Sort(want)
					slices.Reverse(want)
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("%s.%s: %v, %v; want %v", view.Name, column.Name, got, err, want)
					}
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
