package model_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/model"
)

const turnover = `model: shop
aggregates:
  sale:
    commands: {make: {emit: [{event: made, data: {shop: cmd.shop, cents: cmd.cents}}]}}
    evolve: {made: {}}
views:
  turnover:
    key: event.shop
    columns: {shop: string, sales: int, total: int, least: int, most: int, mean: double, first: timestamp, last: timestamp}
    on:
      sale.made:
        fold:
          shop: {value: event.shop}
          sales: count
          total: {sum: event.cents}
          least: {min: event.cents}
          most: {max: event.cents}
          mean: {value: "double((has(row.total) ? row.total : 0) + event.cents) / double((has(row.sales) ? row.sales : 0) + 1)"}
          first: {min: meta.time}
          last: {max: meta.time}
`

func TestFold_GroupsAggregateTheirEvents(t *testing.T) {
	m, err := model.Parse("shop.yaml", []byte(turnover))
	if err != nil {
		t.Fatal(err)
	}
	view := m.Views()[0]
	rapid.Check(t, func(t *rapid.T) {
		cents := rapid.SliceOfN(rapid.Int64Range(-1000, 1000), 1, 20).Draw(t, "cents")
		times := []string{"2026-01-02T03:04:05Z", "2025-01-01T00:00:00Z", "2027-12-31T23:59:59Z"}
		var row model.Object
		total, least, most := int64(0), cents[0], cents[0]
		for i, c := range cents {
			total, least, most = total+c, min(least, c), max(most, c)
			change, err := view.Project(
				t.Context(), model.EventRef{Aggregate: "sale", Event: "made"},
				model.Object{"shop": "north", "cents": c},
				model.Meta{Time: times[i%len(times)]}, func(key string) (model.Object, error) {
					if key != "north" {
						t.Errorf("group %q", key)
					}
					return row, nil
				},
			)
			if err != nil {
				t.Fatal(err)
			}
			row = change.Row
		}
		want := model.Object{
			"shop": "north", "sales": int64(len(cents)), "total": total, "least": least, "most": most,
			"mean":  float64(total) / float64(len(cents)),
			"first": row["first"], "last": row["last"],
		}
		if diff := cmp.Diff(want, row); diff != "" {
			t.Errorf("(-want +row):\n%s", diff)
		}
		if len(cents) >= 3 &&
			(row["first"] != "2025-01-01T00:00:00.000000000Z" || row["last"] != "2027-12-31T23:59:59.000000000Z") {
			t.Errorf("from %v to %v", row["first"], row["last"])
		}
	})
}

func TestFold_OrdersTimesAndLargeNumbersExactly(t *testing.T) {
	m, err := model.Parse("log.yaml", []byte(`model: log
aggregates:
  log:
    commands: {write: {emit: [{event: written, data: {at: cmd.at, n: cmd.n}}]}}
    evolve: {written: {}}
views:
  logs:
    columns: {first: timestamp, last: timestamp, least: int, most: int}
    on: {log.written: {fold: {first: {min: event.at}, last: {max: event.at}, least: {min: event.n}, most: {max: event.n}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var row model.Object
		var first, last time.Time
		var least, most int64
		for i := range rapid.IntRange(1, 10).Draw(t, "events") {
			at := time.Unix(
				1767323045, int64(rapid.SampledFrom([]int{0, 5e8, 25e7, 1, 999999999}).Draw(t, "nanoseconds")),
			).Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "seconds")) * time.Second)
			n := rapid.Int64Range(1<<60, 1<<60+3).Draw(t, "n")
			if i == 0 {
				first, last, least, most = at, at, n, n
			}
			if at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
			least, most = min(least, n), max(most, n)
			text := at.In(time.FixedZone("", 3600*rapid.IntRange(-12, 12).Draw(t, "zone"))).Format(time.RFC3339Nano)
			change, err := m.Views()[0].Project(
				t.Context(), model.EventRef{Aggregate: "log", Event: "written"}, model.Object{"at": text, "n": n},
				model.Meta{AggregateID: "l"},
				func(string) (model.Object, error) { return row, nil },
			)
			if err != nil {
				t.Fatal(err)
			}
			row = change.Row
		}
		if diff := cmp.Diff(
			model.Object{
				"first": model.FormatTime(first), "last": model.FormatTime(last), "least": least, "most": most,
			},
			row,
		); diff != "" {
			t.Errorf("(-want +row):\n%s", diff)
		}
	})
}
