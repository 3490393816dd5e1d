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
	// snapshotEvery bounds the events that are folded on top of a snapshot.
	snapshotEvery = 200
	// maxSnapshotBytes bounds a snapshot. A larger state is folded from its events.
	maxSnapshotBytes = 768 << 10
	// snapshotFormat is the version of the snapshot format. Snapshots of other versions are ignored.
	snapshotFormat = 3
	// restoreTimeout bounds the wait for a snapshot. Without it, the events are folded.
	restoreTimeout = time.Second
	// maxPendingSnapshots bounds unacknowledged writes; further snapshots are skipped.
	maxPendingSnapshots = 64
)

// snapshots stores the states of aggregates, so that a node without a cached instance reads only the events after a
// snapshot. They are an optimization: if a snapshot is invalid, the events are folded instead.
type snapshots struct{ async jetstream.JetStream }

// snapshot is a state at a version. It is valid for the model revision that folded it and for the journal that it was
// folded from.
type snapshot struct {
	Format   int               `json:"format"`
	Model    string            `json:"model"`
	Epoch    int64             `json:"epoch"`
	Version  int64             `json:"version"`
	Sequence uint64            `json:"sequence"`
	State    json.RawMessage   `json:"state"`
	Recent   map[string]answer `json:"recent,omitempty"`
	// Order lists the keys of Recent, oldest first.
	Order []string `json:"order,omitempty"`
	// Pages are the answer blocks of the answers before Recent, oldest first.
	Pages []keptPage `json:"pages,omitempty"`
	// Chapters are the first sequences of the block indexes before Pages, oldest first.
	Chapters []uint64 `json:"chapters,omitempty"`
	// Passed, Claimed and Beside are the fields of the instance.
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

// restore loads the aggregate's snapshot into an empty instance if it is valid. It returns the event that the
// snapshot was taken at, even if it is of another model revision, and a zero event if there is no snapshot of the
// instance's journal.
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
	i.version, i.sequence, i.snapshotVersion, i.state = kept.Version, kept.Sequence, kept.Version, state
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

// parseSnapshot returns a snapshot with its state and answer blocks, and false if text is not a valid snapshot of
// this format.
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

// storeSnapshot stores a snapshot asynchronously if the last one is old.
func (s *Service) storeSnapshot(ctx context.Context, key aggregateKey, i *instance) {
	if i.version-i.snapshotVersion < snapshotEvery || s.snapshots.async.PublishAsyncPending() >= maxPendingSnapshots {
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
		return // cannot happen: a handler's context has the contract
	}
	if _, err := s.snapshots.async.PublishMsgAsync(msg); err == nil {
		i.snapshotVersion = i.version
	}
}
