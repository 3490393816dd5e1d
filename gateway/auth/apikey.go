package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/contextkit"
)

// An API key is "hgk_" ID "_" SECRET, sent as a bearer token. The prefix lets scanners find leaked
// keys. The secret is random and long, so that its plain hash cannot be inverted.
const (
	apiKeyPrefix      = "hgk_"
	apiKeySecretBytes = 32
)

var apiKeyID = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// APIKey is a stored API key: the hash of its secret, and its principal.
type APIKey struct {
	ID      string    `yaml:"id"`
	Hash    string    `yaml:"sha256"` // of the secret, in hexadecimal
	Tenants []string  `yaml:"tenants"`
	Rights  []string  `yaml:"rights"`
	Expires time.Time `yaml:"expires,omitempty"` // the zero time: never
}

// NewAPIKey creates a key: the text for its holder, and the stored form. An invalid right (see
// [Right.Check]) is an error that wraps [ErrInvalidRight].
func NewAPIKey(id string, tenants, rights []string, expires time.Time) (key string, kept APIKey, err error) {
	secret := make([]byte, apiKeySecretBytes)
	_, _ = rand.Read(secret) // crypto/rand.Read never fails (Go 1.24)
	text := base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(text))
	kept = APIKey{
		ID:      id,
		Hash:    hex.EncodeToString(sum[:]),
		Tenants: tenants,
		Rights:  rights,
		Expires: expires,
	}
	principal, err := kept.principal()
	if err == nil {
		err = principal.CheckRights()
	}
	if err != nil {
		return "", APIKey{}, err
	}
	return apiKeyPrefix + id + "_" + text, kept, nil
}

func parseAPIKeys(document []byte) (list []APIKey, err error) {
	if err := yaml.Unmarshal(document, &list); err != nil {
		return nil, fmt.Errorf("auth: API keys: %w", err)
	}
	return list, nil
}

func (k APIKey) principal() (*Principal, error) {
	if !apiKeyID.MatchString(k.ID) && !issuedKeyID.MatchString(k.ID) {
		return nil, fmt.Errorf("auth: API key id %q: want lower-case letters, digits and hyphens", k.ID)
	}
	if sum, err := hex.DecodeString(k.Hash); err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("auth: API key %s: its sha256 is not a hexadecimal SHA-256 hash", k.ID)
	}
	principal, err := NewPrincipal(apiKeySubject+k.ID, k.Tenants, k.Rights)
	if err == nil {
		principal.Until, principal.apiKey = k.Expires, k.ID
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

// APIKeyRing holds the valid API keys, reloaded from their source. It is safe for concurrent use.
type APIKeyRing struct {
	document document
	current  atomic.Pointer[apiKeys]
}

// OpenAPIKeys reads a YAML list of stored keys; it returns an error if they are invalid.
func OpenAPIKeys(ctx context.Context, source Source) (*APIKeyRing, error) {
	r := &APIKeyRing{document: document{source: source, what: "API keys"}}
	r.current.Store(&apiKeys{})
	if err := r.document.open(ctx, r.use); err != nil {
		return nil, err
	}
	return r, nil
}

// Run reloads the keys from the source until ctx ends. It calls changed after every change, and
// report after failures: the current keys then stay in use.
func (r *APIKeyRing) Run(ctx context.Context, changed func(), report func(error)) {
	r.document.follow(ctx, r.use, changed, report)
}

// Rights returns the rights of the valid keys, by key id.
func (r *APIKeyRing) Rights() map[string][]Right {
	rights := map[string][]Right{}
	for id, key := range *r.current.Load() {
		rights[id] = key.principal.Rights
	}
	return rights
}

// authenticateKey returns the principal of an API key from the settings or issued by the platform.
func (v *Verifier) authenticateKey(text string, now time.Time) (*Principal, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, apiKeyPrefix), "_")
	if !isIssued(id) {
		return v.apiKeys().authenticate(text, now)
	}
	principal, err := v.issued.Load().authenticate(text, now)
	if err == nil && principal.Until.Sub(now) > maxIssuedLifetime+2*v.config.Leeway {
		return nil, badToken("the API key expires more than %v from now", maxIssuedLifetime)
	}
	return principal, err
}

// apiKey returns the valid key with an id.
func (v *Verifier) apiKey(id string) (apiKey, bool) {
	keys := v.apiKeys()
	if isIssued(id) {
		keys = *v.issued.Load()
	}
	key, ok := keys[id]
	return key, ok
}

// use replaces the keys with those of the document. Unchanged keys retain their principals.
func (r *APIKeyRing) use(document []byte) error {
	list, err := parseAPIKeys(document)
	if err != nil {
		return err
	}
	before, keys := *r.current.Load(), apiKeys{}
	for _, k := range list {
		if _, taken := keys[k.ID]; taken {
			return fmt.Errorf("auth: two API keys have the id %q", k.ID)
		}
		if known, ok := before[k.ID]; ok && reflect.DeepEqual(known.kept, k) {
			keys[k.ID] = known
			continue
		}
		if isIssued(k.ID) {
			return fmt.Errorf("auth: API key id %q: ids with a dot are those of issued keys", k.ID)
		}
		principal, err := k.principal()
		if err != nil {
			return err
		}
		hash, err := hex.DecodeString(k.Hash)
		if err != nil {
			return fmt.Errorf("auth: API key %s: its sha256 is not a hexadecimal SHA-256 hash", k.ID)
		}
		keys[k.ID] = apiKey{kept: k, hash: hash, principal: principal}
	}
	r.current.Store(&keys)
	return nil
}

// apiKeys are the valid keys, by id.
type apiKeys map[string]apiKey

type apiKey struct {
	kept      APIKey
	hash      []byte
	principal *Principal
}

// authenticate returns a key's principal. An unknown id takes as long as a wrong secret.
func (k apiKeys) authenticate(token string, now time.Time) (*Principal, error) {
	id, secret, _ := strings.Cut(strings.TrimPrefix(token, apiKeyPrefix), "_")
	key, known := k[id]
	if !known {
		key.hash = make([]byte, sha256.Size)
	}
	sum := sha256.Sum256([]byte(secret))
	switch {
	case subtle.ConstantTimeCompare(sum[:], key.hash) != 1 || !known:
		return nil, badToken("unknown API key: id is %.*q", maxQuoted, id)
	case !key.principal.Until.IsZero() && now.After(key.principal.Until):
		return nil, ErrExpired
	}
	return key.principal, nil
}
