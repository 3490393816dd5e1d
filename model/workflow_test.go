package model_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/model"
)

func TestParseDuration_AcceptsGoDaysAndISO8601(t *testing.T) {
	start := time.Date(2024, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"15m": 15 * time.Minute, "1d": 24 * time.Hour, "2w3d4h": (17*24 + 4) * time.Hour,
		"1d12h30m": 36*time.Hour + 30*time.Minute, "1.5s": 1500 * time.Millisecond,
		"0s": 0, "PT15M": 15 * time.Minute, "P1D": 24 * time.Hour, "P1DT12H": 36 * time.Hour,
		"PT0.5S": 500 * time.Millisecond, "PT1,5H": 90 * time.Minute,
		"P2W": 14 * 24 * time.Hour, "P1M": 31 * 24 * time.Hour, "P1Y": 366 * 24 * time.Hour, "P0.5D": 12 * time.Hour,
		"PT36H": 36 * time.Hour,
	} {
		d, err := model.ParseDuration(text)
		// AddDate normalizes 31 February to 2 March.
		if got := d.After(start).Sub(start); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "15", "15 minutes", "d", "-1d", "-15m", "+15m", "1d-1h", "P", "PT", "P1DT", "1D", "P-1D", "PT0.5M1S", "P1H",
		"1h1d", "99999999d", "P999999999Y",
		"PT99999999999999H", "9999w9999d2540000h", "P1S", "p1d",
	} {
		if d, err := model.ParseDuration(text); err == nil {
			t.Errorf("%q parsed as %v, want an error", text, d)
		}
	}
}

// workflow returns a model with a workflow that has further members.
func workflow(members string) []byte {
	return []byte(
		"model: m\naggregates:\n  o:\n    commands:\n      go: {emit: [{event: went}]}\n    evolve: {went: {k: " +
			"event.k}}\n" +
			"workflows:\n  w:\n    on: o.went\n" + members,
	)
}

const oneStep = "    steps: [{name: a, submit: {aggregate: o, id: meta.aggregate_id, command: go}}]\n"

func TestParse_RejectsConstantWaitsThatCannotEnd(t *testing.T) {
	waits := func(text string) []byte { return workflow("    steps: [{name: w, wait: \"" + text + "\"}]\n") }
	for _, text := range []string{
		"'15 minutes'", "'-1h'", "''", "'P'", "'1' + ' d'", "'11w' + '99999999d'", "'P11Y'", "'9999-01-01T00:00:00Z'",
		"'2026-13-01T00:00:00Z'",
	} {
		var mistakes *model.Error
		if _, err := model.Parse("m", waits(text)); !errors.As(err, &mistakes) ||
			!strings.Contains(err.Error(), "wait") {
			t.Errorf("%s: %v, want an error", text, err)
		}
		if _, err := model.ParseStored(t.Context(), "m", waits(text)); err != nil {
			t.Errorf("%s, stored: %v", text, err)
		}
	}
	for _, text := range []string{
		"'1d'", "'PT15M'", "'P40D'", "'15' + 'm'", "'2001-01-01T00:00:00Z'", "event.k", "event.k + ' days'",
	} {
		if _, err := model.Parse("m", waits(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParse_ChecksFromAndMigrations(t *testing.T) {
	for members, want := range map[string]string{
		"    from: beginning\n": "", "    from: now\n": "", "    from: later\n": "neither now nor beginning",
		"    migrate: {from: any}\n": "",
		"    migrate: {from: [0123456789ab], rename: {old: a}, drop: [gone]}\n": "",
		"    migrate: {from: any, rename: {old: b}}\n":                          "no step",
		"    migrate: {from: any, rename: {a: a}}\n":                            "still has",
		"    migrate: {from: any, rename: {old: a, older: a}}\n":                "two steps",
		"    migrate: {from: any, rename: {old: a}, drop: [old]}\n":             "renamed and dropped",
		"    migrate: {from: any, drop: [a]}\n":                                 "has the step",
		"    migrate: {from: [HEAD]}\n":                                         "not a model revision",
		"    migrate: {rename: {old: a}}\n":                                     "needs `from`",
	} {
		_, err := model.Parse("m", workflow(members+oneStep))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", members, err, want)
		}
	}
	m, err := model.Parse("m",
		workflow("    migrate: {from: [0123456789ab], rename: {old: a}, drop: [gone]}\n"+oneStep))
	if err != nil {
		t.Fatal(err)
	}
	w, _ := m.Workflow("w")
	if !w.Migration.Covers("0123456789ab") || w.Migration.Covers("0123456789ac") {
		t.Error("the migration covers other revisions than it names")
	}
	for old, want := range map[string]string{"a": "a", "old": "a", "gone": "", "other": "?"} {
		name, ok := w.Migration.Step(w, old)
		if !ok {
			name = "?"
		}
		if want != name && ok || ok == (want == "?") {
			t.Errorf("%s: got %q, %v; want %q", old, name, ok, want)
		}
	}
}
