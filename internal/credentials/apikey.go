package credentials

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strings"
	"time"
)

// Bounds of issued API keys, revoked and expired ones included.
const (
	// MaxAPIKeys bounds their number, MaxIssuerAPIKeys the number of one issuer's, MaxTenantAPIKeys that of
	// one tenant's, and MaxAllTenantAPIKeys that of all tenants'.
	MaxAPIKeys          = 5_000
	MaxIssuerAPIKeys    = 100
	MaxTenantAPIKeys    = 100
	MaxAllTenantAPIKeys = MaxAPIKeys / 2
	// MaxAPIKeyBytes bounds the bytes of their records.
	MaxAPIKeyBytes = 16 << 20
)

const (
	// DefaultKeyLifetime is the lifetime of an issued key for which the caller names none.
	DefaultKeyLifetime = 24 * time.Hour
	// MaxKeyLifetime bounds the lifetime of an issued key.
	MaxKeyLifetime = 30 * 24 * time.Hour
	// expiredFor is how long the record of an expired key is stored: clocks of gateways may be behind.
	expiredFor = time.Hour
)

// APIKeyIDPrefix begins the ids of issued keys. Ids of the settings' keys have no dot, so that the two
// sets are disjoint.
const APIKeyIDPrefix = "c."

const (
	// apiKeyPrefix begins the text of an API key, so that scanners find leaked ones.
	apiKeyPrefix  = "hgk_"
	secretBytes   = 32
	apiKeyIDBytes = 16
)

// APIKey is the record of an issued API key.
type APIKey struct {
	// ID begins with [APIKeyIDPrefix]. It is the key in [streams.BucketAPIKeys].
	ID string `json:"id"`
	// Hash is the SHA-256 hash of the secret.
	Hash []byte `json:"sha256"`
	// Name is for people.
	Name string `json:"name"`
	// Tenant is the tenant whose administrators manage the key; "": the platform.
	Tenant string `json:"tenant,omitempty"`
	// Tenants are the tenants that it acts for, "*" for all, and Rights its rights.
	Tenants []string `json:"tenants"`
	Rights  []string `json:"rights"`
	// Created is when it was issued, CreatedBy the subject of the issuer, and Expires when it expires.
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Expires   time.Time `json:"expires"`
	// Revoked is when it was revoked, and RevokedBy by whom; zero: it is not.
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
	// Reason is the reason that was given last.
	Reason string `json:"reason,omitempty"`
}

// NewAPIKey returns the id of a new key, the text for its holder, and the hash to store. The secret has
// 256 random bits: a reader of its hash cannot find it by trying, so that a slow hash with a salt, as for
// passwords, would protect nothing, and would cost each call with a key.
func NewAPIKey() (id, text string, hash []byte) {
	name, secret := make([]byte, apiKeyIDBytes), make([]byte, secretBytes)
	_, _ = rand.Read(name) // crypto/rand.Read never fails (Go 1.24)
	_, _ = rand.Read(secret)
	id = APIKeyIDPrefix +
		strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(name))
	encoded := base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(encoded))
	return id, apiKeyPrefix + id + "_" + encoded, sum[:]
}

// until returns when the record is no longer needed.
func (k APIKey) until() time.Time { return k.Expires.Add(expiredFor) }
