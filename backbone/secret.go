package backbone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// secretBytes is the length of a shared secret: HMAC-SHA-256's block is not
// exceeded, its strength reached.
const secretBytes = 32

// SharedSecret returns the secret called name that all nodes share, made by the
// first that asks.
func SharedSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	bucket, err := js.KeyValue(ctx, BucketSecrets)
	if err != nil {
		return nil, fmt.Errorf("backbone: secret %s: %w", name, err)
	}
	fresh := make([]byte, secretBytes)
	_, _ = rand.Read(fresh) // crypto/rand.Read never fails (Go 1.24)
	if _, err := bucket.Create(ctx, name, fresh); err == nil {
		return fresh, nil
	} else if !errors.Is(err, jetstream.ErrKeyExists) {
		return nil, fmt.Errorf("backbone: make secret %s: %w", name, err)
	}
	kept, err := ReadKept(ctx, js, BucketSecrets, name)
	return kept.Value, err
}
