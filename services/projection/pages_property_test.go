package projection_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// things is a view with a column of each ordered type.
func things(t testing.TB) *model.View {
	t.Helper()
	m, err := model.Parse("things.yaml", []byte(`model: things
aggregates:
  thing:
    commands: {make: {emit: [{event: made, data: {}}]}}
    evolve: {made: {}}
views:
  things:
    columns: {s: string, i: {type: int, index: true}, d: double, b: bool, t: {type: timestamp, index: true}, j: json}
    on: {thing.made: {upsert: {s: "''"}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.View("things")
	return view
}

// thing draws a row of things: few different values, so that many are equal, and NULLs.
func thing(t *rapid.T) model.Object {
	one := func(name string, values ...any) any {
		return rapid.SampledFrom(append(values, nil)).Draw(t, name)
	}
	at := func(seconds int64) string { return model.FormatTime(time.Unix(seconds, 0)) }
	return model.Object{
		"s": one("s", "", "x", "y", "Y", "é", "x\x00", "\uFFFE"),
		"i": one("i", int64(-1), int64(0), int64(2), int64(1)<<62+1, int64(1)<<62),
		"d": one("d", -0.5, 0.0, 3.0, 1e300, 1e17),
		"b": one("b", false, true),
		"t": one("t", at(0), at(1), at(1_800_000_000)),
		"j": nil,
	}
}

// order draws an order of up to four columns.
func order(t *rapid.T) []query.Term {
	columns := rapid.Permutation([]string{"s", "i", "d", "b", "t"}).Draw(t, "columns")
	terms := make([]query.Term, rapid.IntRange(0, 4).Draw(t, "terms"))
	for i := range terms {
		terms[i] = query.Term{Column: columns[i], Desc: rapid.Bool().Draw(t, "descending")}
	}
	return terms
}

// compareValues orders column values: NULL first, then by value.
func compareValues(a, b any) int {
	switch x := a.(type) {
	case nil:
		if b == nil {
			return 0
		}
		return -1
	case bool:
		if y, ok := b.(bool); ok {
			return cmp.Compare(fmt.Sprint(x), fmt.Sprint(y))
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y)
		}
	case string:
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y)
		}
	}
	return 1
}

// pagesOf reads all pages of a request, as QueryService does, and returns the rows' keys. It fails when there are
// more pages than rows.
func pagesOf(
	t *rapid.T, s store.Store, pages *query.Pages, view *model.View, request query.Request, rows int,
) (keys []string) {
	for count := 0; ; count++ {
		if count > rows {
			t.Fatalf("paging over %d pages of %d rows does not end", count, rows)
		}
		plan, err := query.Compile(view, request, s.Dialect())
		if err != nil {
			t.Fatal(err)
		}
		if request.PageToken != "" {
			cursor, err := pages.Parse(request.PageToken, "acme/things", request, plan)
			if err != nil {
				t.Fatal(err)
			}
			plan = plan.After(s.Dialect(), cursor)
		}
		request.PageToken = ""
		var last []any
		_, err = s.Query(context.Background(), view, plan, func(_, terms []any) error {
			if len(last) > 0 && len(keys)%(plan.Limit-1) == 0 {
				var err error
				request.PageToken, err = pages.Next("acme/things", request, plan, last)
				if err != nil {
					return err
				}
				return store.ErrStop
			}
			last = append(last[:0], terms...)
			keys = append(keys, terms[len(terms)-1].(string))
			return nil
		})
		if err != nil {
			t.Fatalf("page %d: %v", count, err)
		}
		if request.PageToken == "" {
			return keys
		}
	}
}

// The pages of any order and size contain all rows, in order, each once.
func TestPages_ContainEachRowOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		view := things(t)
		s, err := newStore(t)(t.Context(), natstest.Tenant(t, "acme"), []*model.View{view}, "origin")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		pages := query.NewPages([]byte("key"), nil)
		rapid.Check(t, func(t *rapid.T) {
			rows := rapid.SliceOfN(rapid.Custom(thing), 0, 12).Draw(t, "rows")
			err := s.Apply(context.Background(), func(batch *store.Batch, _ store.State) error {
				for i := range 12 {
					batch.Delete(view, fmt.Sprintf("k%02d", i))
				}
				for i, row := range rows {
					if err := batch.Put(view, fmt.Sprintf("k%02d", i), row); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			terms := order(t)
			want := make([]int, len(rows))
			for i := range want {
				want[i] = i
			}
			slices.SortStableFunc(want, func(a, b int) int {
				for _, term := range terms {
					c := compareValues(rows[a][term.Column], rows[b][term.Column])
					if term.Desc {
						c = -c
					}
					if c != 0 {
						return c
					}
				}
				return cmp.Compare(a, b)
			})
			keys, criteria := make([]string, len(want)), make([]string, len(terms))
			for i, n := range want {
				keys[i] = fmt.Sprintf("k%02d", n)
			}
			for i, term := range terms {
				if criteria[i] = term.Column; term.Desc {
					criteria[i] += " desc"
				}
			}
			for size := 1; size <= len(rows)+1; size++ {
				request := query.Request{OrderBy: strings.Join(criteria, ", "), PageSize: size}
				if got := pagesOf(t, s, pages, view, request, len(rows)); !slices.Equal(got, keys) {
					t.Fatalf("order %q, size %d: %v, want %v of %v", request.OrderBy, size, got, keys, rows)
				}
			}
		})
	})
}
