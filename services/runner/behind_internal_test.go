package runner

import (
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/model"
)

func TestAwaits_NewerModelDecided(t *testing.T) {
	s := &Service{
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
		"an event of an earlier version":                    {journal.ModelRef{}, 0, false, false},
		"the same model":                                    {applied("own", 5), 0, false, false},
		"the same model, applied later":                     {applied("own", 9), 0, false, false},
		"an older model":                                    {applied("x", 4), 0, false, false},
		"a newer model":                                     {applied("x", 6), 0, false, true},
		"a newer model, long ago":                           {applied("x", 6), time.Hour, false, true},
		"a model of unknown order":                          {file("x", 0), 0, false, false},
		"a newer file just now":                             {file("x", 6), 0, false, true},
		"a newer file that no node uses":                    {file("x", 6), time.Hour, false, false},
		"a newer file that a node uses":                     {file("announced", 6), time.Hour, false, true},
		"an older file that a node uses":                    {file("announced", 4), time.Hour, false, false},
		"an applied model where the runner has a file":      {applied("x", 6), time.Hour, true, false},
		"an applied model that a node is about to use":      {applied("pending", 6), time.Hour, true, true},
		"an applied model, just now, the runner has a file": {applied("x", 6), 0, true, true},
	} {
		m := &model.Model{Revision: "own", Order: 5, FromFile: tc.fromFile}
		event := &journal.Event{Type: "e", Time: time.Now().Add(-tc.age), Model: tc.by}
		if err := s.awaits(m, event); errors.Is(err, errBehind) != tc.want {
			t.Errorf("%s: %v, want it to be handed back: %v", name, err, tc.want)
		}
	}
}
