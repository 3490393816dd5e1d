package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// startsKey is the key in the bucket "runner" of the [startRecord].
const startsKey = "workflows"

// startRecord contains, by workflow identity, the sequence of the journal after which events start the workflow. The
// first runner that stores it creates it from the model; those workflows start at all events. A workflow that is
// added later starts at events after its model was applied. A workflow that is removed and added again is new.
type startRecord struct {
	After map[string]uint64 `json:"after"`
	// Epoch is the epoch of the journal that After belongs to.
	Epoch int64 `json:"epoch"`
}

// starts determines the events from which workflows start. Its methods may be called concurrently.
type starts struct {
	js      jetstream.JetStream
	journal *journal.Journal
	bucket  *kv.Bucket[startRecord] // startsKey only
	applied *kv.Bucket[models.Document]

	mu       sync.Mutex
	revision string // of the model that after is of
	after    map[string]uint64
}

func openStarts(
	ctx context.Context, js jetstream.JetStream, journal *journal.Journal, applied *kv.Bucket[models.Document],
) (*starts, error) {
	bucket, err := kv.Open[startRecord](ctx, js, streams.BucketRunner)
	return &starts{
		js:      js,
		journal: journal,
		bucket:  bucket,
		applied: applied,
	}, err
}

// of returns, by workflow identity, the sequence after which events start a model's workflows, and stores it for new
// workflows.
func (s *starts) of(ctx context.Context, m *model.Model) (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision == m.Revision && s.after != nil {
		return s.after, nil
	}
	for {
		kept, err := s.bucket.Get(ctx, startsKey)
		fresh := errors.Is(err, kv.ErrNotFound)
		if err != nil && !fresh {
			return nil, fmt.Errorf("read the start sequences of workflows: %w", err)
		}
		next := startRecord{After: map[string]uint64{}, Epoch: s.journal.Epoch()}
		var added []string
		for _, w := range m.Workflows() {
			after, ok := kept.Value.After[w.Identity()]
			if ok && kept.Value.Epoch != next.Epoch {
				after = min(after, s.journal.AcceptedEnd(kept.Value.Epoch))
			}
			if !ok {
				added = append(added, w.Identity())
			}
			next.After[w.Identity()] = after
		}
		if !fresh && len(added) > 0 {
			since, err := s.since(ctx, m, added)
			if err != nil {
				return nil, err
			}
			maps.Copy(next.After, since)
		}
		if fresh || kept.Value.Epoch != next.Epoch || !maps.Equal(next.After, kept.Value.After) {
			_, err = s.bucket.Put(contextkit.PlatformContext(ctx), startsKey, next, kept.Revision)
			if errors.Is(err, kv.ErrChanged) {
				continue // another runner was first
			}
			if err != nil {
				return nil, fmt.Errorf("store the start sequences of workflows: %w", err)
			}
		}
		s.revision, s.after = m.Revision, next.After
		return next.After, nil
	}
}

// since returns, for added workflows of a model, the last sequence of the journal when each was added: when the first
// model was applied since which all models up to this one have the workflow, including models that no runner has
// used. It is the journal's end if that is not recorded, because the model comes from a file, or an earlier version
// of the control node applied it.
func (s *starts) since(ctx context.Context, m *model.Model, added []string) (map[string]uint64, error) {
	history, err := s.applied.History(ctx, models.Key) // newest first
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(history,
		func(kept kv.Entry[models.Document]) bool { return kept.Value.Revision == m.Revision })
	var sequence uint64
	if at >= 0 {
		sequence = history[at].Value.Sequence
	}
	if sequence == 0 {
		if sequence, err = journal.End(ctx, s.js); err != nil {
			return nil, err
		}
		at = len(history) - 1
	}
	since := map[string]uint64{}
	for _, identity := range added {
		since[identity] = sequence
	}
	for _, kept := range history[at+1:] {
		if kept.Value.Sequence == 0 {
			break
		}
		if kept.Value.Revision != m.Revision {
			earlier, err := model.ParseStored(ctx, "the model "+kept.Value.Revision, []byte(kept.Value.Text))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				break // another version of the program applied it
			}
			had := identities(earlier)
			added = slices.DeleteFunc(added, func(identity string) bool { return !slices.Contains(had, identity) })
		}
		for _, identity := range added {
			since[identity] = kept.Value.Sequence
		}
		if len(added) == 0 {
			break
		}
	}
	return since, nil //nolint:nilerr // a model that cannot be read ends the search
}

// starts reports whether an event may start a workflow: the event came after the workflow was added, or was decided
// by the model that has the workflow, or the workflow is for all events.
func (s *starts) starts(ctx context.Context, m *model.Model, w *model.Workflow, event journal.Event) (bool, error) {
	if w.FromBeginning || event.Sequence == 0 { // of a dead letter
		return true, nil
	}
	if event.Model.Revision != "" && event.Model.Revision == m.Revision {
		return true, nil // a node may use a model from a file before this runner does
	}
	after, err := s.of(ctx, m)
	return event.Sequence > after[w.Identity()], err
}

// noteStarts stores the sequences from which the workflows of the model in use start. If it fails, the first trigger
// does so.
func (s *Service) noteStarts(ctx context.Context) {
	if _, err := s.starts.of(ctx, s.models.Current()); err != nil && ctx.Err() == nil {
		s.log.Warn().Err(err).Msg("storing the start sequences of the model's workflows failed, retrying")
	}
}

// identities returns the identities of a model's workflows, sorted. It is not nil.
func identities(m *model.Model) []string {
	out := []string{}
	for _, w := range m.Workflows() {
		out = append(out, w.Identity())
	}
	slices.Sort(out)
	return out
}
