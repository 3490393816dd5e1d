package runner

import (
	"fmt"
	"maps"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// Two models are applied one after another, and the runner only sees the last one: events that were decided in
// between start the workflows that the first one added.
func TestStarts_WorkflowOfModelThatNoRunnerUsed(t *testing.T) {
	js, ctx := natstest.Start(t), contextkit.PlatformContext(t.Context())
	journal, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	documents, err := kv.Open[models.Document](ctx, js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStarts(ctx, js, journal, documents)
	if err != nil {
		t.Fatal(err)
	}
	var applied uint64
	apply := func(sequence uint64, note string, workflows ...string) *model.Model {
		t.Helper()
		text := "model: m\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, evolve: {e: {}}}}\nworkflows: # " +
			note + "\n"
		for _, name := range workflows {
			text += fmt.Sprintf(
				"  %s: {on: a.e, steps: [{name: s, submit: {aggregate: a, id: \"'1'\", command: x}}]}\n", name,
			)
		}
		m, err := model.ParseStored(ctx, "m", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if applied, err = documents.Put(
			ctx, models.Key, models.Document{Text: text, Revision: m.Revision, Sequence: sequence}, applied,
		); err != nil {
			t.Fatal(err)
		}
		return m
	}
	after := func(m *model.Model, want map[string]uint64) {
		t.Helper()
		got, err := s.of(ctx, m)
		named := map[string]uint64{}
		for name, sequence := range want {
			named[name+"@a.e"] = sequence
		}
		if err != nil || !maps.Equal(got, named) {
			t.Errorf("%v, %v; want %v", got, err, named)
		}
	}
	after(apply(10, "", "first"), map[string]uint64{"first": 0})
	apply(20, "", "first", "added")
	apply(30, "", "first", "added", "later")
	after(apply(40, "a comment", "first", "added", "later"), map[string]uint64{"first": 0, "added": 20, "later": 30})
	after(apply(50, "", "first"), map[string]uint64{"first": 0})
	after(apply(60, "", "first", "added"), map[string]uint64{"first": 0, "added": 60}) // it was removed from the model
}
