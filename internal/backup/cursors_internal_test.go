package backup

import (
	"encoding/json"
	"testing"
)

func TestMoveCursor_PointsIntoTheRestoredJournal(t *testing.T) {
	for name, of := range map[string]struct{ text, want string }{
		"before the end": {
			`{"read":5,"epoch":1,"open":[{"seq":3}],"owner":"x"}`,
			`{"epoch":9,"open":[{"seq":3}],"owner":"x","read":5}`,
		},
		"beyond the end": {`{"read":50,"epoch":1}`, `{"epoch":9,"read":10}`},
		"not an object":  {`"text"`, ""},
		"no epoch":       {`{"read":5}`, ""},
		"invalid JSON":   {`{`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := moveCursor([]byte(of.text), 9, 10)
			if string(got) != of.want || of.want != "" && !json.Valid(got) {
				t.Errorf("cursor %s, want %s", got, of.want)
			}
		})
	}
}

func TestOrdered_PositionsFirstAndSettingsLast(t *testing.T) {
	got := ordered(
		[]string{
			"KV_tenants", "KV_workflows", "EVENTS", "KV_idempotency", "WORK", "KV_cursors", "KV_nodes", "KV_runner",
			"AUDIT", "KV_models", "DEADLETTERS", "KV_other", "KV_revisions", "KV_instances",
		},
	)
	want := []string{
		"KV_runner", "KV_cursors", "DEADLETTERS", "WORK", "AUDIT", "KV_idempotency", "KV_other", "KV_workflows",
		"KV_instances", "EVENTS", "KV_models", "KV_revisions", "KV_tenants",
	}
	if len(got) != len(want) {
		t.Fatalf("order %v, want %v", got, want)
	}
	for n := range want {
		if got[n] != want[n] {
			t.Fatalf("order %v, want %v", got, want)
		}
	}
}
