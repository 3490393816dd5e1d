package projection_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/services/projection/store"
)

// sums is a model whose view adds integers, and stores JSON.
const sums = `model: sums
aggregates:
  wallet:
    commands: {add: {emit: [{event: added, data: {n: cmd.n, j: cmd.j}}]}}
    evolve: {added: {n: event.n}}
views:
  sums:
    columns: {id: string, n: int, j: json}
    on:
      wallet.added: {upsert: {id: meta.aggregate_id, n: "has(row.n) ? row.n + event.n : event.n", j: event.j}}
`

func TestQuery_RejectsIntegersThatJSONRounds(t *testing.T) {
	overBoth(t, rejectsIntegersThatJSONRounds)
}

func rejectsIntegersThatJSONRounds(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t),
		func(context.Context) (string, []byte, error) { return "sums.yaml", []byte(sums), nil })
	const most = 1<<53 - 1
	for row, events := range map[string][]string{
		"exact":    {fmt.Sprintf(`{"n":%d,"j":1}`, most)},
		"even":     {fmt.Sprintf(`{"n":%d,"j":1}`, most), `{"n":3,"j":1}`}, // 2^53 + 2
		"fraction": {`{"n":1,"j":{"a":[1.5,12345678901234567890]}}`},
		"negative": {fmt.Sprintf(`{"n":%d,"j":1}`, -most), `{"n":-2,"j":1}`},
		"positive": {fmt.Sprintf(`{"n":%d,"j":1}`, most), `{"n":2,"j":1}`},
		"nested":   {`{"n":1,"j":{"a":[1,9007199254740993]}}`},
	} {
		for _, event := range events {
			f.append(t, "acme", row, "added", event)
		}
	}
	refused := func(what string, err error, column string) {
		t.Helper()
		if connect.CodeOf(err) != connect.CodeFailedPrecondition ||
			!strings.Contains(fmt.Sprint(err), fmt.Sprintf("column %q", column)) {
			t.Errorf("%s: %v: want an error that names the column %s", what, err, column)
		}
	}
	get := func(key string, fields ...string) error {
		_, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{
			View:        "sums",
			Key:         key,
			MinPosition: f.position(t, "acme"),
			Fields:      fields,
		})
		return err
	}
	for key, column := range map[string]string{
		"negative": "n", "positive": "n", "nested": "j", "exact": "", "even": "", "fraction": "",
	} {
		if column != "" {
			refused(key, get(key), column)
			if err := get(key, "id"); err != nil {
				t.Errorf("%s without the column: %v", key, err)
			}
		} else if err := get(key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	_, err := f.client.Query(as(t, "acme"), &projectionv1.QueryRequest{View: "sums"})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("page: got %v, want an error", err)
	}
	// Filters compare the stored integers.
	res, err := f.client.Query(
		as(t, "acme"),
		&projectionv1.QueryRequest{
			View:  "sums",
			Query: &projectionv1.Query{Filter: "n = 9007199254740993", Fields: []string{"id"}},
		},
	)
	if err != nil || len(res.GetRows()) != 1 {
		t.Errorf("got %v, %v; want the row with the sum 2^53+1", res.GetRows(), err)
	}
	w := f.watch(t, &projectionv1.WatchRequest{View: "sums", Filter: `id = "positive"`})
	for err = nil; err == nil; {
		_, err = w.receive()
	}
	refused("watch", err, "n")
}
