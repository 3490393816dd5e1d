package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// snapshotEvery is how many events an aggregate is folded from at most, beside
	// its snapshot.
	snapshotEvery = 200
	// maxSnapshotBytes bounds a snapshot; a larger state is folded from its events.
	maxSnapshotBytes = 768 << 10
	// snapshotFormat tells snapshots of this form from those of others.
	snapshotFormat = 3
	// restoreTimeout bounds how long a snapshot is waited for: there are the events.
	restoreTimeout = time.Second
	// maxPendingSnapshots bounds those on their way; further ones are left out.
	maxPendingSnapshots = 64
)

// snapshots keep states, so that a node which does not have an aggregate in
// memory reads its last events only. They are a shortcut: whatever is wrong with
// one, the events are folded instead.
type snapshots struct{ async jetstream.JetStream }

// snapshot is a state at a version. It only counts under the model that folded
// it and for the journal that it was folded from.
type snapshot struct {
	Format   int               `json:"format"`
	Model    string            `json:"model"`
	Epoch    int64             `json:"epoch"`
	Version  int64             `json:"version"`
	Sequence uint64            `json:"sequence"`
	State    json.RawMessage   `json:"state"`
	Recent   map[string]answer `json:"recent,omitempty"`
	// Order is the keys of Recent, the oldest first.
	Order []string `json:"order,omitempty"`
	// Pages are of the answers that fell out of Recent, the oldest first.
	Pages []keptPage `json:"pages,omitempty"`
	// Chapters are of the pages before those, the oldest first.
	Chapters []uint64 `json:"chapters,omitempty"`
	// Passed, Claimed and Beside are those of the instance.
	Passed  []passed `json:"passed,omitempty"`
	Claimed int64    `json:"claimed,omitempty"`
	Beside  int64    `json:"beside,omitempty"`
}

func openSnapshots(js jetstream.JetStream) (*snapshots, error) {
	async, err := backbone.Async(js, maxPendingSnapshots, nil)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketSnapshots, err)
	}
	return &snapshots{async}, nil
}

func (k aggregateKey) snapshotKey() string {
	return k.tenant.String() + "." + k.aggregateType + "." + k.id
}

// restore puts the aggregate's snapshot into an empty instance, if there is one that counts. It
// returns the event that the snapshot was taken at, also if it is of another model, and zeros if
// there is none of the instance's journal.
func (s *snapshots) restore(ctx context.Context, key aggregateKey, i *instance) event {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	found, err := backbone.ReadKept(ctx, s.async, backbone.BucketSnapshots, key.snapshotKey())
	if err != nil {
		return event{}
	}
	kept, state, pages, ok := parseSnapshot(found.Value)
	if !ok || kept.Epoch != i.epoch {
		return event{}
	}
	if kept.Model != i.model {
		return event{kept.Version, kept.Sequence}
	}
	i.version, i.sequence, i.kept, i.state = kept.Version, kept.Sequence, kept.Version, state
	i.passed, i.claimed, i.beside = kept.Passed, kept.Claimed, kept.Beside
	for _, name := range kept.Order {
		i.recent.Add(name, kept.Recent[name])
	}
	i.pages, i.chapters = pages, kept.Chapters
	for _, p := range pages {
		if p.full() && p.answers != nil {
			i.unkept = append(i.unkept, &unkept{keepable: p})
		}
	}
	return event{kept.Version, kept.Sequence}
}

// parseSnapshot returns a snapshot with its state and pages, false if it is none of this
// form.
func parseSnapshot(text []byte) (kept snapshot, state model.Object, pages []*page, ok bool) {
	if json.Unmarshal(text, &kept) != nil || kept.Format != snapshotFormat || kept.Version < 1 {
		return kept, state, nil, false
	}
	state, err := model.DecodeObject(kept.State)
	if err != nil {
		return kept, state, nil, false
	}
	pages = make([]*page, len(kept.Pages))
	for n, k := range kept.Pages {
		if pages[n], ok = k.page(); !ok {
			return kept, state, nil, false
		}
	}
	return kept, state, pages, true
}

// keep writes a snapshot behind the caller's back, when the last one is old.
func (s *Service) keep(ctx context.Context, key aggregateKey, i *instance) {
	if i.version-i.kept < snapshotEvery || s.snapshots.async.PublishAsyncPending() >= maxPendingSnapshots {
		return
	}
	state, err := json.Marshal(i.state)
	if err != nil {
		return
	}
	kept := snapshot{Format: snapshotFormat, Model: i.model, Epoch: i.epoch, Version: i.version, Sequence: i.sequence, State: state, Recent: map[string]answer{}, Order: i.recent.Keys(), Chapters: i.chapters}
	kept.Passed, kept.Claimed, kept.Beside = i.passed, i.claimed, i.beside
	for _, name := range kept.Order {
		kept.Recent[name], _ = i.recent.Peek(name)
	}
	for _, p := range i.pages {
		kept.Pages = append(kept.Pages, p.keep())
	}
	data, err := json.Marshal(kept)
	if err != nil || len(data) > maxSnapshotBytes {
		return
	}
	msg := &nats.Msg{Subject: "$KV." + backbone.BucketSnapshots + "." + key.snapshotKey(), Header: nats.Header{}, Data: data}
	if contextkit.InjectNATS(ctx, msg.Header) != nil {
		return // a handler's context has the contract
	}
	if _, err := s.snapshots.async.PublishMsgAsync(msg); err == nil {
		i.kept = i.version
	}
}
