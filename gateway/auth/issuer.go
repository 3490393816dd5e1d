package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer signs tokens with its own key. A development node uses it in place of an identity
// provider.
type Issuer struct {
	name, audience string
	private        jose.JSONWebKey
	signer         jose.Signer
}

// OpenIssuer reads the issuer's Ed25519 key at path, or creates one that only the file's owner can
// read.
func OpenIssuer(path, name, audience string) (*Issuer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data, err = newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("auth: signing key: %w", err)
	}
	issuer := &Issuer{name: name, audience: audience}
	if err := issuer.private.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("auth: signing key %s: %w", path, err)
	}
	if _, ok := issuer.private.Key.(ed25519.PrivateKey); !ok {
		return nil, fmt.Errorf("auth: signing key %s: not a private Ed25519 key", path)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	issuer.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: issuer.private}, options)
	if err != nil {
		return nil, fmt.Errorf("auth: signing key %s: %w", path, err)
	}
	return issuer, nil
}

func newKey(path string) ([]byte, error) {
	_, raw, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key := jose.JSONWebKey{Key: raw, Algorithm: string(jose.EdDSA)}
	thumbprint, err := key.Thumbprint(crypto.SHA256) // RFC 7638
	if err != nil {
		return nil, err
	}
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	data, err := json.Marshal(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return data, os.WriteFile(path, data, 0o600)
}

// PublicKeys returns the JWK set (RFC 7517 §5) that verifies the issuer's tokens.
func (i *Issuer) PublicKeys() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.private.Public()}})
}

// Config returns the configuration that accepts the issuer's tokens.
func (i *Issuer) Config(ctx context.Context) (Config, error) {
	keys, err := OpenKeyRing(ctx, func(context.Context) ([]byte, error) { return i.PublicKeys() })
	if err != nil {
		return Config{}, err
	}
	return Config{Issuers: []IssuerConfig{{Issuer: i.name, Audiences: []string{i.audience}, Keys: keys}}}, nil
}

// Issue returns a signed token for the principal, valid for lifetime. An invalid right (see
// [Right.Check]) is an error that wraps [ErrInvalidRight].
func (i *Issuer) Issue(p *Principal, lifetime time.Duration) (string, error) {
	if err := p.CheckRights(); err != nil {
		return "", err
	}
	tenants := []string{}
	if p.AnyTenant {
		tenants = append(tenants, anyTenant)
	}
	for _, tenant := range p.Tenants {
		tenants = append(tenants, tenant.String())
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss":        i.name,
		"aud":        []string{i.audience},
		"sub":        p.Subject,
		"jti":        rand.Text(),
		"iat":        now.Unix(),
		"nbf":        now.Unix(),
		"exp":        now.Add(lifetime).Unix(),
		claimTenants: tenants,
		claimRights:  p.RightTexts(),
	})
	if err != nil {
		return "", fmt.Errorf("auth: issue: %w", err)
	}
	signed, err := i.signer.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("auth: issue: %w", err)
	}
	return signed.CompactSerialize()
}
