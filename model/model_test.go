package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/model"
)

func wallet(t testing.TB) *model.Model {
	t.Helper()
	registry, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	return registry.Current()
}

const head = `model: demo
aggregates:
  thing:
    commands:
      make: {emit: [{event: made, data: {n: 1}}]}
    evolve:
      made: {n: event.n}
`

func TestParse_ReportsEveryMistakeWithLine(t *testing.T) {
	cases := []struct{ name, document, want string }{
		{"not YAML", "model: [", "broken.yaml:1: "},
		{"empty", "", "broken.yaml:1: the document is empty"},
		{"list", "- a", "broken.yaml:1: expected a mapping"},
		{"unknown section", head + "veiws: {}\n", `broken.yaml:8: unknown key "veiws"`},
		{"no aggregates", "model: demo", "declares no aggregate"},
		{
			"bad name", strings.Replace(head, "thing:", "Thing:", 1),
			`broken.yaml:3: aggregates.Thing: "Thing" is not a name`,
		},
		{
			"malformed expression", strings.Replace(head, "n: 1", "n: 1 +", 1),
			"broken.yaml:5: aggregates.thing.commands.make.emit[0].data.n: column",
		},
		{
			"unknown variable", strings.Replace(head, "event.n", "cmd.n", 1),
			"broken.yaml:7: aggregates.thing.evolve.made.n: column 1 of the expression: undeclared reference to 'cmd'",
		},
		{
			"rule that is not a bool", strings.Replace(head, "{emit", "{require: [{that: 1 + 1, else: x}], emit", 1),
			"broken.yaml:5: aggregates.thing.commands.make.require[0].that: the expression yields int, want bool",
		},
		{
			"rule without a message", strings.Replace(head, "{emit", "{require: [{that: 'true'}], emit", 1),
			"broken.yaml:5: aggregates.thing.commands.make.require[0]: a rule needs",
		},
		{
			"unknown event", strings.Replace(head, "event: made,", "event: mode,", 1),
			`broken.yaml:5: aggregates.thing.commands.make.emit[0].event: aggregate "thing" has no event "mode"`,
		},
		{
			"bad schema", strings.Replace(head, "{emit", "{payload: {type: objekt}, emit", 1),
			"broken.yaml:5: aggregates.thing.commands.make.payload.type: not a JSON Schema",
		},
		{
			"schema with an external reference",
			strings.Replace(head, "{emit", "{payload: {$ref: 'http://localhost/x'}, emit", 1),
			"may not refer to another document",
		},
		{
			"view on an unknown event",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n      thing.lost: {upsert: {n: 1}}\n",
			`broken.yaml:12: views.v.on.thing.lost: aggregate "thing" has no event "lost"`,
		},
		{
			"view with an unknown column",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n      thing.made: {upsert: {m: 1}}\n",
			`broken.yaml:12: views.v.on.thing.made.upsert: the view has no column "m"`,
		},
		{
			"unknown column type",
			head + "views:\n  v:\n    columns: {n: money}\n    on:\n      thing.made: {delete: true}\n",
			`broken.yaml:10: views.v.columns.n: "money" is not a column type`,
		},
		{
			"two actions",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n      thing.made: {upsert: {n: 1}, delete: true}\n",
			"exactly one of upsert, patch, fold and delete",
		},
		{
			"fold into an unknown column",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n      thing.made: {fold: {m: count}}\n",
			`broken.yaml:12: views.v.on.thing.made.fold.m: the view has no column "m"`,
		},
		{
			"fold without a kind",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n      thing.made: {fold: {n: average}}\n",
			"is not `count`",
		},
		{
			"fold with two kinds",
			head + "views:\n  v:\n    columns: {n: int}\n    on:\n" +
				"      thing.made: {fold: {n: {sum: event.n, max: event.n}}}\n",
			"exactly one of sum, min, max and value",
		},
		{
			"sum of strings",
			head + "views:\n  v:\n    columns: {n: string}\n    on:\n      thing.made: {fold: {n: {sum: event.n}}}\n",
			"a column of type string has no sum",
		},
		{
			"workflow with an unknown command",
			head +
				"workflows:\n  w:\n    on: thing.made\n    steps:\n      - name: s\n        submit: {aggregate: " +
				"thing, id: meta.aggregate_id, command: brake}\n",
			`broken.yaml:13: workflows.w.steps[0].submit.command: aggregate "thing" has no command "brake" (it has make)`,
		},
		{
			"duplicate step name",
			head +
				"workflows:\n  w:\n    on: thing.made\n    steps:\n      - {name: s, submit: {aggregate: thing, id: " +
				"meta.aggregate_id, command: make}}\n      - {name: s, submit: {aggregate: thing, id: " +
				"meta.aggregate_id, command: make}}\n",
			`broken.yaml:13: workflows.w.steps[1].name: duplicate step name "s"`,
		},
		{
			"upcast of an unknown event", head + "    events: {lost: {version: 2, upcasts: [{from: 1}]}}\n",
			`broken.yaml:8: aggregates.thing.events.lost: aggregate "thing" has no event "lost"`,
		},
		{
			"version without upcasts",
			head + "    events:\n      made: {version: 3, upcasts: [{from: 1, set: {n: event.n}}]}\n",
			"broken.yaml:9: aggregates.thing.events.made: version 3 needs an upcast from each version before it, and " +
				"there are 1",
		},
		{
			"upcasts out of order", head + "    events:\n      made: {version: 2, upcasts: [{from: 2}]}\n",
			"broken.yaml:9: aggregates.thing.events.made.upcasts[0].from: upcasts must be in order: expected from: 1",
		},
		{
			"upcast that reads the state",
			head + "    events:\n      made: {version: 2, upcasts: [{from: 1, set: {n: state.n}}]}\n",
			"undeclared reference to 'state'",
		},
		{"duplicate key", head + "views: {}\nviews: {}\n", "broken.yaml:9: "},
		{"too large", strings.Repeat("#", 1<<20+1), "larger than 1 MiB"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := model.Parse("broken.yaml", []byte(tc.document))
			var invalid *model.Error
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v\nwant %q in it", err, tc.want)
			}
		})
	}
	t.Run("all errors, by line", func(t *testing.T) {
		_, err := model.Parse("broken.yaml",
			[]byte(strings.NewReplacer("n: 1", "n: 1 +", "event.n", "cmd.n").Replace(head)))
		var invalid *model.Error
		if !errors.As(err, &invalid) || len(invalid.Issues) != 2 || invalid.Issues[0].Line != 5 ||
			invalid.Issues[1].Line != 7 {
			t.Fatalf("err = %v, want lines 5 and 7", err)
		}
	})
}

// decide runs a command against a state and folds the events into it.
func decide(
	t testing.TB, a *model.Aggregate, state model.Object, command string, payload model.Object,
) (model.Object, error) {
	t.Helper()
	c, ok := a.Command(command)
	if !ok {
		t.Fatalf("no command %q", command)
	}
	events, err := c.Decide(t.Context(), state, payload, model.Meta{})
	if err != nil {
		return state, err
	}
	for _, e := range events {
		if state, err = a.Evolve(t.Context(), state, e.Type, e.Data, model.Meta{}); err != nil {
			t.Fatal(err)
		}
	}
	return state, nil
}

func TestWallet_RulesHold(t *testing.T) {
	a, _ := wallet(t).Aggregate("wallet")
	state := model.Object{}
	amount := func(n any) model.Object { return model.Object{"amount": n} }
	steps := []struct {
		command string
		payload model.Object
		refused string // "" when accepted
		balance int64
	}{
		{"deposit", amount(int64(5)), "the wallet is not open", 0},
		{"open", model.Object{"owner": "ada"}, "", 0},
		{"open", model.Object{"owner": "ada"}, "the wallet is open already", 0},
		{"open", nil, "payload: missing property 'owner'", 0},
		{"deposit", amount(int64(100)), "", 100},
		{"deposit", amount(model.Normalize(100.0)), "", 200},
		{"deposit", amount(1.5), "payload.amount: got number, want integer", 200},
		{"deposit", amount("1"), "payload.amount: got string, want integer", 200},
		{"deposit", amount(int64(0)), "payload.amount: minimum", 200},
		{"deposit", model.Object{"amount": int64(1), "to": "x"}, "additional properties 'to' not allowed", 200},
		{"withdraw", amount(int64(201)), "the balance does not cover the amount", 200},
		{"withdraw", amount(int64(200)), "", 0},
	}
	for i, step := range steps {
		var err error
		state, err = decide(t, a, state, step.command, step.payload)
		if (err == nil) != (step.refused == "") || (err != nil && !strings.Contains(err.Error(), step.refused)) {
			t.Fatalf("step %d, %s: err = %v, want %q", i, step.command, err, step.refused)
		}
		if balance, _ := state["balance"].(int64); balance != step.balance {
			t.Fatalf("step %d, %s: balance %v, want %d", i, step.command, state["balance"], step.balance)
		}
	}
}

func TestDecide_DataEqualsStoredData(t *testing.T) {
	for _, data := range []string{
		"3.0", "0.1 + 0.2", "1e21", "-0.0", "9223372036854775807", "5u", "'a\\u00e9\\n<>&'", "b'x' == b'x'", "null",
		"timestamp('2026-01-02T03:04:05.6789Z')", "[1.0, 2.5, [3.0, {'a': 4.0}]]", "{'a': {'b': [1.0, null]}, 'c': []}",
		"{}",
		"cmd", "cmd.nested", "cmd.list", "state", "state.total", "meta", "meta.version", "cmd.fraction * 2.0",
		"cmd.list.map(x, x + 1)",
	} {
		t.Run(data, func(t *testing.T) {
			m, err := model.Parse(
				"test.yaml",
				[]byte(
					strings.NewReplacer("{emit", "{payload: {type: object}, emit", "n: 1",
						fmt.Sprintf("n: %q", data)).Replace(head),
				),
			)
			if err != nil {
				t.Fatal(err)
			}
			thing, _ := m.Aggregate("thing")
			state := model.Object{"total": int64(5), "rest": model.Object{"x": 1.5}}
			payload := model.Normalize(
				model.Object{"nested": model.Object{"n": 7.0}, "list": []any{1.0, 2.0}, "fraction": 1.5},
			).(model.Object)
			decided, err := decide(t, thing, state, "make", payload)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(decided)
			if err != nil {
				t.Fatal(err)
			}
			read, err := model.DecodeObject(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(read, decided); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestView_ProjectsEvents(t *testing.T) {
	view, _ := wallet(t).View("wallets")
	rows := map[string]model.Object{}
	project := func(event string, data model.Object) *model.Change {
		t.Helper()
		change, err := view.Project(t.Context(), model.EventRef{Aggregate: "wallet", Event: event}, data,
			model.Meta{AggregateID: "w", Time: "2026-01-02T03:04:05Z"},
			func(key string) (model.Object, error) { return rows[key], nil })
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			rows[change.Key] = change.Row
		}
		return change
	}
	if project("deposited", model.Object{"amount": int64(1)}) != nil {
		t.Error("a patch without a row changed the view")
	}
	project("opened", model.Object{"owner": "ada"})
	project("deposited", model.Object{"amount": int64(70)})
	project("withdrawn", model.Object{"amount": int64(30)})
	row := rows["w"]
	if row["balance"] != int64(40) || row["movements"] != int64(2) || row["owner"] != "ada" ||
		row["opened_at"] != "2026-01-02T03:04:05.000000000Z" {
		t.Fatalf("row = %v", row)
	}
	if project("unknown", nil) != nil {
		t.Error("an event unknown to the view changed it")
	}
}

func TestWorkflow_BuildsCommands(t *testing.T) {
	w := wallet(t).Workflows()[0]
	trigger := model.Trigger{
		Data: model.Object{"from": "a", "to": "b", "amount": int64(7)},
		Meta: model.Meta{AggregateID: "t1"},
	}
	call, err := w.Steps[0].Undo.Build(t.Context(), trigger, model.Failure{})
	if err != nil || fmt.Sprint(call) != "{wallet a deposit map[amount:7 reference:undo transfer t1]}" {
		t.Fatalf("undo of debit = %v, %v", call, err)
	}
	call, err = w.OnFailure[0].Submit.Build(t.Context(), trigger, model.Failure{Step: "credit", Message: "closed"})
	if err != nil || call.Payload["reason"] != "credit was refused: closed" {
		t.Fatalf("on failure = %v, %v", call, err)
	}
}

func TestExpression_ExceedingCostLimitFails(t *testing.T) {
	document := strings.NewReplacer("n: 1", "n: 'cmd.list.map(a, cmd.list.map(b, a * b)).size()'", "{emit",
		"{payload: {type: object}, emit").Replace(head)
	m, err := model.Parse("costly.yaml", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	list := make([]any, 2000)
	for i := range list {
		list[i] = int64(i)
	}
	a, _ := m.Aggregate("thing")
	c, _ := a.Command("make")
	if _, err := c.Decide(
		t.Context(), model.Object{}, model.Object{"list": list}, model.Meta{},
	); !errors.Is(err, model.ErrEvaluation) {
		t.Fatalf("err = %v, want ErrEvaluation", err)
	}
}

func TestReload_InvalidDocumentLeavesModelInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo.yaml")
	write := func(document string) {
		if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(head)
	registry, err := model.Open(t.Context(), model.File(path))
	if err != nil {
		t.Fatal(err)
	}
	first := registry.Current()
	write(head + "oops")
	if _, err := registry.Reload(t.Context()); err == nil || registry.Current() != first {
		t.Fatalf("invalid document: err = %v, model changed: %v", err, registry.Current() != first)
	}
	write(head)
	if changed, err := registry.Reload(t.Context()); err != nil || changed {
		t.Fatalf("same document: changed %v, %v", changed, err)
	}
	write(head + "# another\n")
	if changed, err := registry.Reload(t.Context()); err != nil || !changed {
		t.Fatalf("other document: changed %v, %v", changed, err)
	}
}

func FuzzParse(f *testing.F) {
	_, document, _ := model.Wallet(context.Background())
	f.Add(string(document))
	f.Add(head)
	f.Fuzz(func(t *testing.T, document string) {
		m, err := model.Parse("fuzz.yaml", []byte(document))
		var invalid *model.Error
		if err != nil && !errors.As(err, &invalid) {
			t.Fatalf("err = %v, want an *Error", err)
		}
		if err == nil && m.Name == "" {
			t.Fatal("a document without a name is valid, want an error")
		}
	})
}

// BenchmarkDecide measures one accepted command: schema, rules and event. It should take a few microseconds.
func BenchmarkDecide(b *testing.B) {
	a, _ := wallet(b).Aggregate("wallet")
	c, _ := a.Command("withdraw")
	state := model.Object{"owner": "ada", "balance": int64(1000)}
	payload := model.Object{"amount": int64(10), "reference": "rent"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Decide(b.Context(), state, payload, model.Meta{}); err != nil {
			b.Fatal(err)
		}
	}
}
