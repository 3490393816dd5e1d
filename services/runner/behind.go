package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/model"
)

// errBehind reports that a trigger was decided by a model that this runner does not use yet. The trigger is handed
// back, which does not count as a failed attempt.
var errBehind = errors.New("a trigger was decided by a model that this runner does not use yet")

// fileGrace is the time before and after an event's decision for which a model from a file counts as in use, since the
// announcements of the nodes that use it may be late. An event whose time is further in the future has another
// producer.
const fileGrace = 10 * time.Second

// awaits returns [errBehind] for a trigger that a newer model than m has decided, since m may not have the workflow
// that it starts. A model that was applied arrives eventually, if the platform has stored it: other producers name
// models that it has not. A model from a file only arrives if its rollout continues, so awaits waits only while a node
// announces that it uses the model. Events of versions that do not record the model are not awaited.
func (s *Service) awaits(ctx context.Context, m *model.Model, event *journal.Event) error {
	by := event.Model
	if by.Revision == "" || by.Revision == m.Revision || by.Order <= m.Order {
		return nil
	}
	if by.FromFile || m.FromFile {
		if time.Since(event.Time).Abs() > fileGrace && !s.inUse(by.Revision) {
			return nil
		}
	} else if latest, err := s.lastApplied(ctx); err == nil && latest < by.Order {
		return nil
	}
	s.handedBack.Add(1)
	return fmt.Errorf("%w: %s at sequence %d, by model %s; the runner's is %s", errBehind, event.Type, event.Sequence,
		by.Revision, m.Revision)
}

// lastApplied returns the order of the model that was applied last, as the bucket's leader has it; 0: none was.
func (s *Service) lastApplied(ctx context.Context) (uint64, error) {
	applied, err := s.history.Get(ctx, models.Key)
	if errors.Is(err, kv.ErrNotFound) {
		return 0, nil
	}
	return applied.Revision, err
}

// inUse reports whether a node announces that it uses a model, or is about to.
func (s *Service) inUse(revision string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revisions[revision]
}

// revisionsOf returns the revisions of the models that nodes announce.
func revisionsOf(nodes []fleet.Node) map[string]bool {
	revisions := map[string]bool{}
	for _, node := range nodes {
		revisions[node.Model], revisions[node.ModelPending] = true, true
	}
	return revisions
}
