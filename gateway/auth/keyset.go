package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

const (
	// minRSABits and maxRSABits bound RSA keys (RFC 7518 §3.3). The upper bound limits the time of
	// a verification.
	minRSABits, maxRSABits = 2048, 8192
	// maxKeys bounds the keys of a set.
	maxKeys = 256
)

// algorithms is the allow-list: asymmetric signatures only, because the keys that
// verify them are public (RFC 8725 §3.1).
var algorithms = []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384, jose.RS256, jose.PS256}

// signingKey is a public key that verifies tokens, for one algorithm.
type signingKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	public    publicKey
}

type publicKey interface {
	Equal(other crypto.PublicKey) bool
}

// equal reports whether both are the same key for the same algorithm.
func (k *signingKey) equal(other *signingKey) bool {
	return k.id == other.id && k.algorithm == other.algorithm && k.public.Equal(other.public)
}

// verify reports whether the token's signature was made with the key.
func (k *signingKey) verify(text string) bool {
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{k.algorithm})
	if err != nil {
		return false
	}
	_, err = signed.Verify(k.public)
	return err == nil
}

// CheckAlgorithms returns an error if one of the names is not an algorithm that can be accepted.
func CheckAlgorithms(names []string) error {
	for _, name := range names {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(name)) {
			return fmt.Errorf("algorithm %.64q is not allowed (allowed: %v)", name, algorithms)
		}
	}
	return nil
}

// parse parses a JWK set (RFC 7517 §5) of public signing keys, by key id. Keys for encryption
// ("use": "enc") and for algorithms that the ring does not accept are skipped. Any other key that
// must not or cannot verify tokens is an error: a key without a kid or with another key's kid, a key
// that is not public, a key whose alg is not in the allow-list or not for its type and curve, and an
// RSA key of less than 2048 bits. In a foreign set these are skipped, except for private and
// symmetric keys, which must not be published, and for a kid that two keys have. A key without alg
// is for the algorithm of its curve, or for RS256.
func (c *KeyRingConfig) parse(data []byte) (map[string]*signingKey, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("the key set is not JSON: %w", err)
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
	}
	set := make(map[string]*signingKey, len(document.Keys))
	for i, raw := range document.Keys {
		key, err := parseKey(raw)
		switch {
		case err != nil && c.Foreign && errors.Is(err, errUnusable):
			continue
		case err != nil:
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		case key == nil || len(c.Algorithms) > 0 && !slices.Contains(c.Algorithms, string(key.algorithm)):
			continue
		case set[key.id] != nil:
			return nil, fmt.Errorf("key %d: duplicate kid %.64q", i+1, key.id)
		}
		set[key.id] = key
	}
	if len(set) == 0 {
		return nil, errors.New("the key set contains no signing key")
	}
	return set, nil
}

// errUnusable is wrapped by the error of a key that cannot verify tokens, and does no harm.
var errUnusable = errors.New("the key cannot verify tokens")

func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUnusable, fmt.Errorf(format, args...))
}

// parseKey parses a public signing key; it returns nil for a key for encryption. Errors wrap
// errUnusable, except for keys that must not be published.
func parseKey(raw []byte) (*signingKey, error) {
	var purpose struct {
		Use    string          `json:"use"`
		Secret json.RawMessage `json:"d"`
		Shared json.RawMessage `json:"k"`
	}
	if err := json.Unmarshal(raw, &purpose); err != nil {
		return nil, errors.New("not a JWK")
	}
	if purpose.Secret != nil || purpose.Shared != nil {
		return nil, errors.New("not a public key")
	}
	if purpose.Use == "enc" {
		return nil, nil //nolint:nilnil // a key for encryption is not an error
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(raw); err != nil {
		return nil, unusable("not a JWK: %w", err)
	}
	public, _ := key.Key.(publicKey)
	algorithm := jose.SignatureAlgorithm(key.Algorithm)
	if algorithm == "" {
		algorithm = algorithmOf(public)
	}
	switch {
	case key.KeyID == "" || len(key.KeyID) > maxKeyIDBytes:
		return nil, unusable("kid must have 1 to %d bytes", maxKeyIDBytes)
	case !slices.Contains(algorithms, algorithm):
		return nil, unusable("alg %.64q is not allowed (allowed: %v)", key.Algorithm, algorithms)
	case !key.IsPublic() || public == nil:
		return nil, errors.New("not a public key")
	case !fits(public, algorithm):
		return nil, unusable("its type, curve or size is not one of %s (RSA keys have %d to %d bits)", algorithm,
			minRSABits, maxRSABits)
	}
	return &signingKey{id: key.KeyID, algorithm: algorithm, public: public}, nil
}

// algorithmOf returns the algorithm of a key that names none; "": there is none. RSA keys are for
// RS256, the default of OpenID Connect (OpenID Connect Core §15.1).
func algorithmOf(public publicKey) jose.SignatureAlgorithm {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384, jose.RS256} {
		if public != nil && fits(public, algorithm) {
			return algorithm
		}
	}
	return ""
}

// fits reports whether the key is valid for the algorithm (RFC 7518 §3.1, RFC 8037).
func fits(public publicKey, algorithm jose.SignatureAlgorithm) bool {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return algorithm == jose.EdDSA
	case *ecdsa.PublicKey:
		return algorithm == jose.ES256 && key.Curve == elliptic.P256() ||
			algorithm == jose.ES384 && key.Curve == elliptic.P384()
	case *rsa.PublicKey:
		return (algorithm == jose.RS256 || algorithm == jose.PS256) && key.N.BitLen() >= minRSABits &&
			key.N.BitLen() <= maxRSABits
	}
	return false
}
