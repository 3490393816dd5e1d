package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// Issuer signs tokens with a key of its own. A development node uses it in the
// place of an identity provider.
type Issuer struct {
	name, audience string
	private        jwk.Key
}

// OpenIssuer reads the issuer's Ed25519 key at path, or makes one that only the
// file's owner can read.
func OpenIssuer(path, name, audience string) (*Issuer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data, err = newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("auth: signing key: %w", err)
	}
	private, err := jwk.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("auth: signing key %s: %w", path, err)
	}
	return &Issuer{name: name, audience: audience, private: private}, nil
}

func newKey(path string) ([]byte, error) {
	_, raw, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := jwk.Import(raw)
	if err != nil {
		return nil, err
	}
	if err := jwk.AssignKeyID(key); err != nil {
		return nil, err
	}
	if err := key.Set(jwk.AlgorithmKey, jwa.EdDSA()); err != nil {
		return nil, err
	}
	data, err := json.Marshal(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return data, os.WriteFile(path, data, 0o600)
}

// PublicKeys returns the JWK set (RFC 7517 §5) that the issuer's tokens are
// checked with.
func (i *Issuer) PublicKeys() ([]byte, error) {
	public, err := i.private.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	set := jwk.NewSet()
	if err := set.AddKey(public); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return json.Marshal(set)
}

// Config returns the configuration that accepts the issuer's tokens.
func (i *Issuer) Config(ctx context.Context) (Config, error) {
	keys, err := OpenKeyRing(ctx, func(context.Context) ([]byte, error) { return i.PublicKeys() })
	if err != nil {
		return Config{}, err
	}
	return Config{Keys: keys, Issuer: i.name, Audience: i.audience}, nil
}

// Issue returns a signed token for the principal, good for lifetime.
func (i *Issuer) Issue(p *Principal, lifetime time.Duration) (string, error) {
	tenants := []string{}
	if p.AnyTenant {
		tenants = append(tenants, anyTenant)
	}
	for _, tenant := range p.Tenants {
		tenants = append(tenants, tenant.String())
	}
	rights := make([]string, len(p.Rights))
	for n, right := range p.Rights {
		rights[n] = right.String()
	}
	now := time.Now()
	token, err := jwt.NewBuilder().Issuer(i.name).Audience([]string{i.audience}).Subject(p.Subject).
		IssuedAt(now).NotBefore(now).Expiration(now.Add(lifetime)).
		Claim(claimTenants, tenants).Claim(claimRights, rights).Build()
	if err != nil {
		return "", fmt.Errorf("auth: issue: %w", err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.EdDSA(), i.private))
	if err != nil {
		return "", fmt.Errorf("auth: issue: %w", err)
	}
	return string(signed), nil
}
