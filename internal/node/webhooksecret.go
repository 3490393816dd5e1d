package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/services/runner/webhook"
)

// OpenDevWebhookSecret returns the secret from which a development platform derives the signing secrets of webhooks,
// and creates it if it does not exist. data is the platform's data directory.
func OpenDevWebhookSecret(data string) ([]byte, error) {
	path := filepath.Join(data, "dev-webhook-secret")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		fresh := make([]byte, 32)
		_, _ = rand.Read(fresh) // crypto/rand.Read never fails (Go 1.24)
		text = []byte(hex.EncodeToString(fresh) + "\n")
		if err = os.MkdirAll(data, 0o700); err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("secret of webhooks: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return nil, fmt.Errorf("secret of webhooks: %s is empty: remove it, and a new one is created", path)
	}
	return []byte(secret), nil
}

// HostWebhookSecret returns the secret that webhooks to a host are signed with: by the platform whose data directory
// is data, or, if file is not "", by the runners whose settings name this file (webhooks.secret).
func HostWebhookSecret(data, file, host string) (string, error) {
	if file == "" {
		secret, err := OpenDevWebhookSecret(data)
		return webhook.HostSecret(secret, host), err
	}
	secret, err := readCredential(file)
	if err == nil && secret == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	return webhook.HostSecret([]byte(secret), host), err
}
