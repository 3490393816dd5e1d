package runner

import (
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/model"
)

// errBehind says that a trigger was decided by a model that this runner does not use yet. It is
// handed back, and is no failed attempt.
var errBehind = errors.New("a trigger was decided by a model that this runner does not use yet")

// fileGrace is how long after an event's decision a model from a file counts as in use: so late
// the announcements of the nodes that use it may be.
const fileGrace = 10 * time.Second

// awaits returns [errBehind] for a trigger that a newer model than m has decided: m may not know
// the workflow that it starts. A model that was applied arrives eventually. One from a file does
// only if its rollout goes on: it is waited for while a node announces that it uses it. Events of
// versions that do not note the model are not waited for.
func (s *Service) awaits(m *model.Model, event *backbone.Event) error {
	by := event.Model
	if by.Revision == "" || by.Revision == m.Revision || by.Order <= m.Order {
		return nil
	}
	if (by.FromFile || m.FromFile) && time.Since(event.Time) > fileGrace && !s.inUse(by.Revision) {
		return nil
	}
	s.handedBack.Add(1)
	return fmt.Errorf("%w: %s at sequence %d, by model %s; the runner's is %s", errBehind, event.Type, event.Sequence, by.Revision, m.Revision)
}

// inUse reports whether a node announces that it uses a model, or is about to.
func (s *Service) inUse(revision string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revisions[revision]
}

// revisionsOf returns the revisions of the models that nodes announce.
func revisionsOf(nodes []backbone.Node) map[string]bool {
	revisions := map[string]bool{}
	for _, node := range nodes {
		revisions[node.Model], revisions[node.ModelPending] = true, true
	}
	return revisions
}
