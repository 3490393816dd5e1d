package runner

import (
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

func TestAwaits_NewerModelDecided(t *testing.T) {
	s := &Service{
		history:   appliedUpTo(t, 6),
		revisions: revisionsOf([]fleet.Node{{Model: "announced"}, {Model: "own", ModelPending: "pending"}, {}}),
	}
	applied := func(revision string, order uint64) journal.ModelRef {
		return journal.NewModelRef(revision, order, false)
	}
	file := func(revision string, order uint64) journal.ModelRef {
		return journal.NewModelRef(revision, order, true)
	}
	for name, tc := range map[string]struct {
		by       journal.ModelRef
		age      time.Duration
		fromFile bool // the runner's model is
		want     bool
	}{
		"event of an earlier version":                    {journal.ModelRef{}, 0, false, false},
		"same model":                                     {applied("own", 5), 0, false, false},
		"same model, applied later":                      {applied("own", 9), 0, false, false},
		"older model":                                    {applied("x", 4), 0, false, false},
		"newer model":                                    {applied("x", 6), 0, false, true},
		"newer model, applied long ago":                  {applied("x", 6), time.Hour, false, true},
		"newer model than every applied one":             {applied("x", 7), 0, false, false},
		"newer file, event in the future":                {file("x", 6), -time.Hour, false, false},
		"model of unknown order":                         {file("x", 0), 0, false, false},
		"newer file, recent event":                       {file("x", 6), 0, false, true},
		"newer file, used by no node":                    {file("x", 6), time.Hour, false, false},
		"newer file, used by a node":                     {file("announced", 6), time.Hour, false, true},
		"older file, used by a node":                     {file("announced", 4), time.Hour, false, false},
		"applied model, runner has a file":               {applied("x", 6), time.Hour, true, false},
		"applied model, pending on a node":               {applied("pending", 6), time.Hour, true, true},
		"applied model, recent event, runner has a file": {applied("x", 6), 0, true, true},
	} {
		m := &model.Model{Revision: "own", Order: 5, FromFile: tc.fromFile}
		event := &journal.Event{Type: "e", Time: time.Now().Add(-tc.age), Model: tc.by}
		if err := s.awaits(contextkit.PlatformContext(t.Context()), m, event); errors.Is(err, errBehind) != tc.want {
			t.Errorf("%s: handed back: got %v, want %v", name, err, tc.want)
		}
	}
}

// appliedUpTo returns the bucket of models in which the last one was applied at a revision of at least 1.
func appliedUpTo(t *testing.T, revision uint64) *kv.Bucket[models.Document] {
	t.Helper()
	bucket, err := kv.Open[models.Document](t.Context(), natstest.Start(t), streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	for at := uint64(0); at < revision; {
		if at, err = bucket.Put(
			contextkit.PlatformContext(t.Context()), models.Key, models.Document{Revision: "x"}, at,
		); err != nil {
			t.Fatal(err)
		}
	}
	return bucket
}
