package kv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// secretBytes is the length of a shared secret: HMAC-SHA-256's block is not
// exceeded, its strength reached.
const secretBytes = 32

// Names of secrets, each shared by the nodes that need it.
const (
	// SecretTokens is the secret under which services sign positions and page tokens.
	SecretTokens = "tokens"
	// SecretTickets is the secret under which gateways seal tickets, which are credentials.
	SecretTickets = "tickets"
	// SecretCredentials is the secret under which control seals revocations and API keys for gateways.
	SecretCredentials = "credentials"
)

// EnsureSecrets creates the secrets that are missing.
func EnsureSecrets(ctx context.Context, js jetstream.JetStream) error {
	for _, name := range []string{SecretTokens, SecretTickets, SecretCredentials} {
		if _, err := EnsureSecret(ctx, js, name); err != nil {
			return err
		}
	}
	return nil
}

// SharedSecret returns the secret called name, created by the first node
// that asks, under the platform's context.
//
// A node whose NATS user may not write the bucket reads the secret that the set-up has created,
// from any replica. Error: [streams.ErrNotSetUp], if there is none.
func SharedSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	if natsclient.Identified(js.Conn()) {
		return readSecret(ctx, js, name)
	}
	return EnsureSecret(ctx, js, name)
}

// readSecret reads a secret by a request whose subject has the key, which the permissions of a user
// can name.
func readSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	var reply *nats.Msg
	if err := natsclient.Patiently(ctx, func(ctx context.Context) (err error) {
		reply, err = js.Conn().RequestWithContext(ctx,
			"$JS.API.DIRECT.GET.KV_"+streams.BucketSecrets+".$KV."+streams.BucketSecrets+"."+name, nil)
		return err
	}); err != nil {
		return nil, fmt.Errorf("kv: read secret %s: %w", name, err)
	}
	if reply.Header.Get("Status") != "" || reply.Header.Get("KV-Operation") != "" {
		return nil, fmt.Errorf("kv: the secret %q is missing: %w: run 'headgate nats-setup' as the set-up user", name,
			streams.ErrNotSetUp)
	}
	return checkSecret(name, reply.Data)
}

// EnsureSecret returns the secret called name, created if it is missing.
func EnsureSecret(ctx context.Context, js jetstream.JetStream, name string) ([]byte, error) {
	fresh := make([]byte, secretBytes)
	_, _ = rand.Read(fresh) // crypto/rand.Read never fails (Go 1.24)
	if err := create(contextkit.PlatformContext(ctx), js, streams.BucketSecrets, name, fresh); err == nil {
		return fresh, nil
	} else if !errors.Is(err, ErrChanged) {
		return nil, fmt.Errorf("kv: create secret %s: %w", name, err)
	}
	stored, err := Read(ctx, js, streams.BucketSecrets, name)
	if errors.Is(err, ErrNotFound) { // it was deleted: an operator wants a new one
		if err = replaceDeleted(contextkit.PlatformContext(ctx), js, streams.BucketSecrets, name, fresh); err == nil ||
			errors.Is(err, ErrChanged) {
			stored, err = Read(ctx, js, streams.BucketSecrets, name)
		}
	}
	if err != nil {
		return nil, err
	}
	return checkSecret(name, stored.Value)
}

// checkSecret returns a secret, or an error if it is damaged.
func checkSecret(name string, secret []byte) ([]byte, error) {
	if len(secret) != secretBytes || isAnswer(secret) {
		return nil, fmt.Errorf(
			"kv: the secret %q in bucket %s is damaged: it has %d bytes, and a secret has %d that are random. "+
				"Restore it, or delete the key (nats kv del %s %s) and restart all nodes: a new one is made, and the "+
				"tokens that were issued before are refused",
			name, streams.BucketSecrets, len(secret), secretBytes, streams.BucketSecrets, name,
		)
	}
	return secret, nil
}
