package model_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

func TestRegistry_ApplyFollowsTheOrderOfModels(t *testing.T) {
	text := func(name string) string {
		return "model: " + name + "\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, evolve: {e: {}}}}\n"
	}
	placed := 0
	registry, err := model.OpenPlaced(
		t.Context(), func(context.Context) (string, []byte, error) { return "file", []byte(text("first")), nil },
		func(context.Context, *model.Model) (uint64, bool, error) { placed++; return 3, true, nil },
	)
	if err != nil {
		t.Fatal(err)
	}
	if m := registry.Current(); m.Order != 3 || !m.FromFile || placed != 1 {
		t.Fatalf("order %d, from a file %v", m.Order, m.FromFile)
	}
	for _, step := range []struct {
		name    string
		text    string
		order   uint64
		changed bool
		fails   bool
		want    string
		at      uint64
	}{
		{"older model", text("older"), 2, false, false, "first", 3},
		{"same model, applied later", text("first"), 5, false, false, "first", 5},
		{"other model", text("second"), 7, true, false, "second", 7},
		{"invalid model", "model: 3", 9, false, true, "second", 7},
		{"earlier model, applied again", text("first"), 11, true, false, "first", 11},
		{"model that arrives late", text("second"), 7, false, false, "first", 11},
	} {
		next := registry.Changed()
		changed, err := registry.Apply(t.Context(), "applied", []byte(step.text), step.order)
		var mistakes *model.Error
		if changed != step.changed || errors.As(err, &mistakes) != step.fails || err != nil && !step.fails {
			t.Fatalf("%s: changed %v, %v", step.name, changed, err)
		}
		select {
		case <-next:
			if !step.changed {
				t.Errorf("%s: change announced", step.name)
			}
		default:
			if step.changed {
				t.Errorf("%s: no change announced", step.name)
			}
		}
		if m := registry.Current(); m.Name != step.want || m.Order != step.at || m.FromFile && step.at != 3 {
			t.Errorf("%s: %s at %d is in use", step.name, m.Name, m.Order)
		}
	}
}

func TestCommand_InternalIsTrueOrFalse(t *testing.T) {
	document := func(value string) []byte {
		return []byte(
			"model: m\naggregates:\n  a:\n    commands:\n      x:\n        internal: " + value +
				"\n        emit: [{event: e}]\n    evolve: {e: {}}\n",
		)
	}
	for value, want := range map[string]bool{"true": true, "false": false} {
		m, err := model.Parse("m", document(value))
		if err != nil {
			t.Fatal(err)
		}
		a, _ := m.Aggregate("a")
		if c, _ := a.Command("x"); c.Internal != want {
			t.Errorf("internal: %s is %v", value, c.Internal)
		}
	}
	for _, value := range []string{"", "yes", "on", `"true"`, "1", "[true]", "~"} {
		if _, err := model.Parse("m", document(value)); err == nil ||
			!strings.Contains(err.Error(), "m:6: aggregates.a.commands.x.internal: expected true or false") {
			t.Errorf("internal: %s: %v", value, err)
		}
	}
}

func TestOpen_ReturnsTheErrorOfTheFirstModel(t *testing.T) {
	failed := errors.New("no such file")
	const valid = "model: m\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, evolve: {e: {}}}}\n"
	placed := func(context.Context, *model.Model) (uint64, bool, error) { return 0, false, failed }
	for _, test := range []struct {
		document string
		source   error
		place    model.Place
		want     string
	}{
		{"", failed, nil, "no such file"},
		{"model: 3\n", nil, nil, "is not a name"},
		{valid, nil, placed, "no such file"},
	} {
		registry, err := model.OpenPlaced(t.Context(), func(context.Context) (string, []byte, error) {
			return "file", []byte(test.document), test.source
		}, test.place)
		if registry != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %s", test.document, err, test.want)
		}
	}
}
