package backbone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

// secretBytes is the length of a shared secret: HMAC-SHA-256's block is not
// exceeded, its strength reached.
const secretBytes = 32

// SharedSecret returns the secret called name that all nodes share, created by the first node
// that asks, under the platform's context.
func SharedSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	fresh := make([]byte, secretBytes)
	_, _ = rand.Read(fresh) // crypto/rand.Read never fails (Go 1.24)
	if err := createKept(contextkit.PlatformContext(ctx), js, BucketSecrets, name, fresh); err == nil {
		return fresh, nil
	} else if !errors.Is(err, ErrChanged) {
		return nil, fmt.Errorf("backbone: create secret %s: %w", name, err)
	}
	kept, err := ReadKept(ctx, js, BucketSecrets, name)
	return kept.Value, err
}
