package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// revocationsIn returns the revocations of tokens that are stored, by their ids, and the number of sealed ones that
// cannot be opened: they, or their secret, are another platform's. Without a platform there are none. Errors: those of
// the store.
func revocationsIn(
	ctx context.Context, js jetstream.JetStream,
) (revocations map[string]credentials.Revocation, sealed int, err error) {
	for _, bucket := range []string{streams.BucketRevocations, streams.BucketSecrets} {
		_, err := js.KeyValue(ctx, bucket)
		switch {
		case errors.Is(err, jetstream.ErrBucketNotFound):
			return nil, 0, nil
		case err != nil:
			return nil, 0, err
		}
	}
	store, err := credentials.OpenStore[credentials.Revocation](ctx, js, streams.BucketRevocations)
	if err != nil {
		return nil, 0, err
	}
	if err := store.Load(ctx); err != nil {
		return nil, 0, err
	}
	all, err := store.All()
	revocations = make(map[string]credentials.Revocation, len(all))
	for id, entry := range all {
		revocations[id] = entry.Value
	}
	_, _, sealed = store.Size()
	return revocations, sealed, err
}

// retainedRevocations returns the revocations that a restore has retained before it was interrupted; interrupted is
// false if there is none, or if it has replaced nothing.
func retainedRevocations(
	ctx context.Context, js jetstream.JetStream,
) (revocations map[string]credentials.Revocation, interrupted bool, err error) {
	records, interrupted, err := setup.Retained(ctx, js)
	revocations = make(map[string]credentials.Revocation, len(records))
	for _, text := range records {
		var r credentials.Revocation
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, false, fmt.Errorf("a revocation that an interrupted restore has retained: %w", err)
		}
		revocations[r.ID()] = r
	}
	return revocations, interrupted, err
}

// retainRevocations stores revocations outside the data that a restore replaces.
func retainRevocations(
	ctx context.Context, js jetstream.JetStream, revocations map[string]credentials.Revocation,
) error {
	records := make([]json.RawMessage, 0, len(revocations))
	for _, r := range revocations {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		records = append(records, text)
	}
	return setup.Retain(ctx, js, records)
}

// returnRevocations stores the revocations that are newer than the stored ones, or not among them, and have not
// expired. It returns their number.
func returnRevocations(
	ctx context.Context, js jetstream.JetStream, revocations map[string]credentials.Revocation,
) (stored int, err error) {
	store, err := credentials.OpenStore[credentials.Revocation](ctx, js, streams.BucketRevocations)
	if err != nil {
		return 0, err
	}
	for id, r := range revocations {
		now, err := store.Get(ctx, id)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return stored, err
		}
		if err == nil && !r.Time.After(now.Value.Time) || time.Now().After(r.Expires) {
			continue
		}
		if _, err := store.Put(ctx, id, r, now.Revision); err != nil {
			return stored, fmt.Errorf("revocation %s: %w", id, err)
		}
		stored++
	}
	return stored, nil
}

// lostCredentials returns what a restore means for credentials. taken is when the backup was taken, and returned the
// number of revocations that were taken over from the data that it replaced, if replaced is true.
func lostCredentials(taken time.Time, replaced bool, returned int) string {
	unknown := "revocations of tokens"
	if replaced {
		unknown = fmt.Sprintf("%d revocations of tokens were taken over from the replaced data; others", returned)
	}
	return fmt.Sprintf(
		"credentials: %s that were made after %s are not known: revoke these tokens again (docs/playbooks.md, "+
			"\"A token leaked\"). API keys that control has issued are not restored: none of them is accepted, issue "+
			"new ones\n",
		unknown, taken.UTC().Format(time.RFC3339),
	)
}
