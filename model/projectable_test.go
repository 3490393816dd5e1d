package model_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

const projected = `model: projected
aggregates:
  order:
    commands: {place: {emit: [{event: placed, data: {}}]}}
    evolve: {placed: {}}
views:
  cities: {columns: {city: string}, on: {order.placed: {upsert: {city: event.address.city}}}}
  totals: {key: event.shop, columns: {total: double, shop: {type: string, index: true}, n: int}, on: {order.placed: {fold: {total: {sum: event.price}, shop: {value: event.shop}, n: count}}}}
  rows: {columns: {n: double}, on: {order.placed: {upsert: {n: "has(row.n) ? row.n + event.price : event.price"}}}}
  times: {columns: {at: timestamp}, on: {order.placed: {upsert: {at: event.at}}}}
  doubled: {columns: {list: json}, on: {order.placed: {upsert: {list: "event.list.map(x, x * 2)"}}}}
  counts: {columns: {n: int}, on: {order.placed: {upsert: {n: event.count}}}}
`

func TestCheckProjections_RejectsEventsThatFailForAnyRow(t *testing.T) {
	m, err := model.Parse("m.yaml", []byte(projected))
	if err != nil {
		t.Fatal(err)
	}
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	for name, tc := range map[string]struct{ change, rule string }{
		"valid event":                {``, ""},
		"price without a fraction":   {`"price":2`, ""}, // whether it fits depends on the row
		"no address":                 {`"address":null`, "views.cities.on.order.placed"},
		"no city":                    {`"address":{}`, "views.cities.on.order.placed"},
		"city that is a number":      {`"address":{"city":7}`, "views.cities.on.order.placed"},
		"price that is not a number": {`"price":"much"`, "views.totals.on.order.placed"},
		"key that is not a string":   {`"shop":7`, "views.totals.key"},
		"key over the limit": {
			`"shop":"` + strings.Repeat("s", model.MaxKeyBytes+1) + `"`, "views.totals.key",
		},
		"key at the limit":           {`"shop":"` + strings.Repeat("s", model.MaxKeyBytes) + `"`, ""},
		"count with a fraction":      {`"count":1.5`, "views.counts.on.order.placed"},
		"large list":                 {`"list":` + list(8000), "views.doubled.on.order.placed"},
		"list":                       {`"list":` + list(100), ""},
		"no time":                    {`"at":"soon"`, "views.times.on.order.placed"},
		"lower-case time":            {`"at":"2030-05-01t10:00:00z"`, ""},
		"leap second":                {`"at":"2016-12-31T23:59:60Z"`, ""},
		"leap second with an offset": {`"at":"2017-01-01T00:59:60.5+01:00"`, ""},
		"second 61":                  {`"at":"2016-12-31T12:59:60Z"`, "views.times.on.order.placed"},
		"year after 9999":            {`"at":"9999-12-31T23:59:59-01:00"`, "views.times.on.order.placed"},
		"missing time":               {`"at":null`, ""},
	} {
		data, err := model.DecodeObject(
			[]byte(`{"address":{"city":"Ulm"},"shop":"s","price":1.5,"at":"2030-05-01T10:00:00Z","list":[],"count":1}`),
		)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := model.DecodeObject([]byte("{" + tc.change + "}"))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range changed {
			data[name] = value
		}
		err = m.CheckProjections(t.Context(), model.EventRef{Aggregate: "order", Event: "placed"}, data, model.Meta{})
		failed, _ := errors.AsType[*model.EvaluationError](err)
		if tc.rule == "" && err != nil || tc.rule != "" && (failed == nil || failed.ID != tc.rule) {
			t.Errorf("%s: %v, want a failure of %q", name, err, tc.rule)
		}
	}
}

func TestView_TimestampsAreStoredInOneForm(t *testing.T) {
	m, err := model.Parse("m.yaml", []byte(projected))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.View("times")
	for text, want := range map[string]string{
		"2030-05-01t10:00:00z":         "2030-05-01T10:00:00.000000000Z",
		"2030-05-01t10:00:00.25+02:00": "2030-05-01T08:00:00.250000000Z",
		"2016-12-31T23:59:60Z":         "2017-01-01T00:00:00.000000000Z",
		"2016-12-31t18:59:60.75-05:00": "2017-01-01T00:00:00.000000000Z",
	} {
		change, err := view.Project(t.Context(), model.EventRef{Aggregate: "order", Event: "placed"},
			model.Object{"at": text}, model.Meta{AggregateID: "o"}, nil)
		if err != nil || change.Row["at"] != want {
			t.Errorf("%s: %v, %v; want %s", text, change, err, want)
		}
	}
}

// Checks of event members, which most views use, are free.
func TestCheckProjections_OfMembersDoesNotAllocate(t *testing.T) {
	m, err := model.Parse("m.yaml", []byte(`model: members
aggregates:
  order:
    commands: {place: {emit: [{event: placed, data: {}}]}}
    evolve: {placed: {}}
views:
  orders: {columns: {shop: {type: string, index: true}, n: int, at: timestamp}, on: {order.placed: {upsert: {shop: event.shop, n: event.n, at: event.at}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	data := model.Object{"shop": "s", "n": int64(1), "at": "2030-05-01T10:00:00Z"}
	allocations := testing.AllocsPerRun(100, func() {
		if err := m.CheckProjections(
			t.Context(), model.EventRef{Aggregate: "order", Event: "placed"}, data, model.Meta{},
		); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 0 {
		t.Errorf("%v allocations", allocations)
	}
}
