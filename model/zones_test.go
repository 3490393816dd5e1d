package model_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

// Expressions know time zones by name on machines without zoneinfo, since the program embeds it.
func TestExpression_TimeZonesArePartOfTheProgram(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(out)), "time/tzdata") {
		t.Error("package model does not have time/tzdata")
	}
	m, err := model.Parse("zones.yaml", []byte(`model: zones
aggregates:
  thing:
    commands:
      make: {payload: {type: object}, emit: [{event: made, data: {}}]}
    evolve: {made: {}}
workflows:
  tell:
    on: thing.made
    when: timestamp(meta.time).getHours('America/St_Johns') == 7 && timestamp(meta.time).getMinutes('Asia/Kathmandu') == 45
    steps: [{name: again, submit: {aggregate: thing, id: "'x'", command: make}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	applies, err := m.Workflows()[0].Applies(context.Background(),
		model.Trigger{Data: model.Object{}, Meta: model.Meta{Time: "2026-07-01T10:00:00Z"}})
	if err != nil || !applies {
		t.Errorf("%v, %v", applies, err)
	}
}
