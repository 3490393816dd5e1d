package aggregate

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate/idempotency"
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
type snapshots struct {
	async  jetstream.JetStream
	bucket *kv.Bucket[json.RawMessage]
}

// snapshot is a state at a version. It is valid for the model revision that folded it and for the journal that it was
// folded from.
type snapshot struct {
	Format   int             `json:"format"`
	Model    string          `json:"model"`
	Epoch    int64           `json:"epoch"`
	Version  int64           `json:"version"`
	Sequence uint64          `json:"sequence"`
	State    json.RawMessage `json:"state"`

	idempotency.Snapshot

	// Passed, Claimed and Beside are the fields skipped, claimed and uncounted of the instance.
	Passed  []skippedMessage `json:"passed,omitempty"`
	Claimed int64            `json:"claimed,omitempty"`
	Beside  int64            `json:"beside,omitempty"`
}

func openSnapshots(ctx context.Context, js jetstream.JetStream) (*snapshots, error) {
	async, err := natsclient.Async(js, maxPendingSnapshots, nil)
	if err != nil {
		return nil, err
	}
	bucket, err := kv.Open[json.RawMessage](ctx, async, streams.BucketSnapshots)
	if err != nil {
		return nil, err
	}
	return &snapshots{async, bucket}, nil
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
	found, err := s.bucket.Get(ctx, key.snapshotKey())
	if err != nil {
		return event{}
	}
	stored, state, ok := parseSnapshot(found.Value)
	if !ok || stored.Epoch != i.epoch {
		return event{}
	}
	if stored.Model != i.model {
		return event{stored.Version, stored.Sequence}
	}
	if i.log.Restore(stored.Snapshot) != nil {
		return event{}
	}
	i.version, i.sequence, i.snapshotVersion, i.state = stored.Version, stored.Sequence, stored.Version, state
	i.skipped, i.claimed, i.uncounted = stored.Passed, stored.Claimed, stored.Beside
	return event{stored.Version, stored.Sequence}
}

// parseSnapshot returns a snapshot with its state, and false if text is not a snapshot of this format. It does not
// check the idempotency log.
func parseSnapshot(text []byte) (stored snapshot, state model.Object, ok bool) {
	if json.Unmarshal(text, &stored) != nil || stored.Format != snapshotFormat || stored.Version < 1 {
		return stored, state, false
	}
	state, err := model.DecodeObject(stored.State)
	return stored, state, err == nil
}

// storeSnapshot stores a snapshot asynchronously if the last one is old.
func (s *Service) storeSnapshot(ctx context.Context, key aggregateKey, i *instance) {
	if i.version-i.snapshotVersion < snapshotEvery || s.snapshots.async.PublishAsyncPending() >= maxPendingSnapshots {
		return
	}
	data, err := i.encodeSnapshot()
	if err != nil || len(data) > maxSnapshotBytes {
		return
	}
	if _, err := s.snapshots.bucket.PutAsync(ctx, key.snapshotKey(), data); err == nil {
		i.snapshotVersion = i.version
	}
}

// encodeSnapshot returns the instance's snapshot.
func (i *instance) encodeSnapshot() ([]byte, error) {
	state, err := json.Marshal(i.state)
	if err != nil {
		return nil, err
	}
	return json.Marshal(snapshot{
		Format:   snapshotFormat,
		Model:    i.model,
		Epoch:    i.epoch,
		Version:  i.version,
		Sequence: i.sequence,
		State:    state,
		Snapshot: i.log.Snapshot(),
		Passed:   i.skipped,
		Claimed:  i.claimed,
		Beside:   i.uncounted,
	})
}
