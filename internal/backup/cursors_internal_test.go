package backup

import (
	"encoding/json"
	"testing"
)

func TestMoveCursor_KeepsItsPlaceInTheRestoredJournal(t *testing.T) {
	for name, of := range map[string]struct{ text, want string }{
		"within": {
			`{"read":5,"epoch":1,"open":[{"seq":3}],"owner":"x"}`,
			`{"epoch":9,"open":[{"seq":3}],"owner":"x","read":5}`,
		},
		"beyond":       {`{"read":50,"epoch":1}`, `{"epoch":9,"read":10}`},
		"no cursor":    {`"text"`, ""},
		"of no epoch":  {`{"read":5}`, ""},
		"not readable": {`{`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := moveCursor([]byte(of.text), 9, 10)
			if string(got) != of.want || of.want != "" && !json.Valid(got) {
				t.Errorf("it becomes %s, want %s", got, of.want)
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
		t.Fatalf("the order is %v, want %v", got, want)
	}
	for n := range want {
		if got[n] != want[n] {
			t.Fatalf("the order is %v, want %v", got, want)
		}
	}
}
