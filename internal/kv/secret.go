package kv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
)

// secretBytes is the length of a shared secret: HMAC-SHA-256's block is not
// exceeded, its strength reached.
const secretBytes = 32

// SharedSecret returns the secret called name that all nodes share, created by the first node
// that asks, under the platform's context.
func SharedSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	fresh := make([]byte, secretBytes)
	_, _ = rand.Read(fresh) // crypto/rand.Read never fails (Go 1.24)
	if err := create(contextkit.PlatformContext(ctx), js, streams.BucketSecrets, name, fresh); err == nil {
		return fresh, nil
	} else if !errors.Is(err, ErrChanged) {
		return nil, fmt.Errorf("kv: create secret %s: %w", name, err)
	}
	kept, err := Read(ctx, js, streams.BucketSecrets, name)
	if errors.Is(err, ErrNotFound) { // it was deleted: an operator wants a new one
		if err = replaceDeleted(contextkit.PlatformContext(ctx), js, streams.BucketSecrets, name, fresh); err == nil || errors.Is(err, ErrChanged) {
			kept, err = Read(ctx, js, streams.BucketSecrets, name)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(kept.Value) != secretBytes {
		return nil, fmt.Errorf("kv: the secret %q in bucket %s is damaged: it has %d bytes instead of %d. "+
			"Restore it, or delete the key (nats kv del %s %s) and restart all nodes: a new one is made, and the tokens that were issued before are refused",
			name, streams.BucketSecrets, len(kept.Value), secretBytes, streams.BucketSecrets, name)
	}
	return kept.Value, nil
}
