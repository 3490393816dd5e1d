package auth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Bounds of API keys that the platform issues.
const (
	// MaxIssuedKeys bounds their number in memory. The platform stores fewer.
	MaxIssuedKeys = 6000
	// maxIssuedLifetime bounds the remaining lifetime of a key. The clock that set a later expiry was wrong.
	maxIssuedLifetime = 30 * 24 * time.Hour
	// issuedKeyBytes is the memory of a key, in addition to its texts.
	issuedKeyBytes = 512
)

// issuedKeyID is the form of the ids of issued keys. No id of a key of the settings has a dot.
var issuedKeyID = regexp.MustCompile(`^c\.[a-z2-7]{26}$`)

// isIssued reports whether an id is of the form of issued keys rather than of those of the settings.
func isIssued(id string) bool { return strings.Contains(id, ".") }

// IssuedKey is a valid API key that the platform has issued. It has an expiry.
type IssuedKey struct {
	// ID is the key's id, and Hash the SHA-256 hash of its secret.
	ID   string
	Hash []byte
	// Tenants are the tenants that it acts for, "*" for all, and Rights its rights.
	Tenants, Rights []string
	// Expires is when it expires.
	Expires time.Time
	// Revision changes with the key's record.
	Revision uint64
}

// SetIssuedKeys replaces the valid API keys that the platform has issued: all others of its keys are
// rejected. Unchanged keys retain their principals. It returns the errors of keys that are not valid,
// which are rejected too.
func (v *Verifier) SetIssuedKeys(list []IssuedKey) error {
	var errs []error
	v.issuing.Lock()
	defer v.issuing.Unlock()
	if len(list) > MaxIssuedKeys {
		errs = append(errs, fmt.Errorf("auth: %d issued API keys: the first %d are used", len(list), MaxIssuedKeys))
		list = list[:MaxIssuedKeys]
	}
	before, keys, revisions, bytes := *v.issued.Load(), apiKeys{}, map[string]uint64{}, 0
	for _, k := range list {
		key, known := before[k.ID]
		if !known || v.revisions[k.ID] != k.Revision {
			var err error
			if key, err = k.key(); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		keys[k.ID], revisions[k.ID] = key, k.Revision
		bytes += key.size()
	}
	v.revisions, v.issuedAway = revisions, time.Time{}
	v.issuedBytes.Store(int64(bytes))
	v.issued.Store(&keys)
	return errors.Join(errs...)
}

// IssuedKeysAway reports that changes of the API keys which the platform issues are not received, until
// [Verifier.SetIssuedKeys] is called. The known keys stay valid.
func (v *Verifier) IssuedKeysAway() {
	v.issuing.Lock()
	defer v.issuing.Unlock()
	if v.issuedAway.IsZero() {
		v.issuedAway = time.Now()
	}
}

// DegradedIssuedKeys returns why the known API keys of the platform may be outdated, "" if their changes
// are received.
func (v *Verifier) DegradedIssuedKeys() string {
	v.issuing.Lock()
	defer v.issuing.Unlock()
	if v.issuedAway.IsZero() {
		return ""
	}
	return fmt.Sprintf("API keys that the platform issues are not received since %s: those known then apply",
		v.issuedAway.UTC().Format(time.RFC3339))
}

// key returns the key for the ring of valid keys.
func (k IssuedKey) key() (apiKey, error) {
	stored := APIKey{
		ID:      k.ID,
		Hash:    hex.EncodeToString(k.Hash),
		Tenants: k.Tenants,
		Rights:  k.Rights,
		Expires: k.Expires,
	}
	switch {
	case !issuedKeyID.MatchString(k.ID):
		return apiKey{}, fmt.Errorf("auth: issued API key: the id %.64q is malformed", k.ID)
	case k.Expires.IsZero():
		return apiKey{}, fmt.Errorf("auth: issued API key %s: it has no expiry", k.ID)
	}
	principal, err := stored.principal()
	return apiKey{kept: stored, hash: k.Hash, principal: principal}, err
}

// size estimates the memory of a key.
func (k apiKey) size() int {
	bytes := issuedKeyBytes + 2*(len(k.kept.ID)+len(k.kept.Hash))
	for _, text := range append(append([]string(nil), k.kept.Tenants...), k.kept.Rights...) {
		bytes += 2 * len(text)
	}
	return bytes
}
