package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"go.yaml.in/yaml/v3"
)

// An API key is "hgk_" ID "_" SECRET, sent as a bearer token. The prefix lets
// scanners find keys that leaked. The secret is random and long, so a plain
// hash of it cannot be searched back.
const (
	apiKeyPrefix      = "hgk_"
	apiKeySecretBytes = 32
)

var apiKeyID = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// APIKey is a key as it is kept: the hash of its secret, and who it is.
type APIKey struct {
	ID      string    `yaml:"id"`
	Hash    string    `yaml:"sha256"` // of the secret, in hexadecimal
	Tenants []string  `yaml:"tenants"`
	Rights  []string  `yaml:"rights"`
	Expires time.Time `yaml:"expires,omitempty"` // the zero time: never
}

// NewAPIKey makes a key: what its holder sends, and what is kept.
func NewAPIKey(id string, tenants, rights []string, expires time.Time) (key string, kept APIKey, err error) {
	secret := make([]byte, apiKeySecretBytes)
	_, _ = rand.Read(secret) // crypto/rand.Read never fails (Go 1.24)
	text := base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(text))
	kept = APIKey{ID: id, Hash: hex.EncodeToString(sum[:]), Tenants: tenants, Rights: rights, Expires: expires}
	if _, err := kept.principal(); err != nil {
		return "", APIKey{}, err
	}
	return apiKeyPrefix + id + "_" + text, kept, nil
}

// ParseAPIKeys reads a YAML list of kept keys.
func ParseAPIKeys(document []byte) ([]APIKey, error) {
	var list []APIKey
	if err := yaml.Unmarshal(document, &list); err != nil {
		return nil, fmt.Errorf("auth: API keys: %w", err)
	}
	return list, nil
}

func (k APIKey) principal() (*Principal, error) {
	if !apiKeyID.MatchString(k.ID) {
		return nil, fmt.Errorf("auth: API key id %q: lower-case letters, digits and hyphens are wanted", k.ID)
	}
	if sum, err := hex.DecodeString(k.Hash); err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("auth: API key %s: its sha256 is no hash", k.ID)
	}
	principal, err := NewPrincipal("key:"+k.ID, k.Tenants, k.Rights)
	if err == nil {
		principal.Until = k.Expires
	}
	return principal, err
}

// NewPrincipal parses tenants ("*" for all) and rights.
func NewPrincipal(subject string, tenants, rights []string) (*Principal, error) {
	p := &Principal{Subject: subject}
	for _, name := range tenants {
		if name == anyTenant {
			p.AnyTenant = true
			continue
		}
		tenant, err := contextkit.ParseTenantID(name)
		if err != nil {
			return nil, err
		}
		p.Tenants = append(p.Tenants, tenant)
	}
	for _, text := range rights {
		right, err := ParseRight(text)
		if err != nil {
			return nil, err
		}
		p.Rights = append(p.Rights, right)
	}
	return p, nil
}

// apiKeys are the keys that count, by id.
type apiKeys map[string]apiKey

type apiKey struct {
	hash      []byte
	principal *Principal
}

func newAPIKeys(list []APIKey) (apiKeys, error) {
	keys := apiKeys{}
	for _, k := range list {
		principal, err := k.principal()
		if err != nil {
			return nil, err
		}
		if _, taken := keys[k.ID]; taken {
			return nil, fmt.Errorf("auth: two API keys are called %q", k.ID)
		}
		sum, err := hex.DecodeString(k.Hash)
		if err != nil {
			return nil, errors.Join(ErrBadToken, err)
		}
		keys[k.ID] = apiKey{hash: sum, principal: principal}
	}
	return keys, nil
}

// authenticate returns a key's principal. An unknown id takes as long as a wrong
// secret.
func (k apiKeys) authenticate(token string, now time.Time) (*Principal, error) {
	id, secret, _ := strings.Cut(strings.TrimPrefix(token, apiKeyPrefix), "_")
	key, known := k[id]
	if !known {
		key.hash = make([]byte, sha256.Size)
	}
	sum := sha256.Sum256([]byte(secret))
	switch {
	case subtle.ConstantTimeCompare(sum[:], key.hash) != 1 || !known:
		return nil, fmt.Errorf("%w: the API key is not known", ErrBadToken)
	case !key.principal.Until.IsZero() && now.After(key.principal.Until):
		return nil, ErrExpired
	}
	return key.principal, nil
}
