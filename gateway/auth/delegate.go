package auth

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/headgate/headgate/contextkit"
)

// Delegate is the part of a principal's rights for one tenant and some actions, in a form that
// another process can verify against the original credential: it expires and is revoked with the
// credential. It must be stored where its holder can neither read nor change it.
type Delegate struct {
	Subject string   `json:"sub"`
	Tenant  string   `json:"tenant,omitempty"` // "": the platform
	Any     bool     `json:"any,omitempty"`    // the principal acts for every tenant
	Rights  []string `json:"rights,omitempty"`
	Until   int64    `json:"until,omitempty"` // Unix milliseconds; 0: never
	// Issuer is the iss of the token; "": that of the issuer without a name, as written by earlier
	// versions.
	Issuer string `json:"iss,omitempty"`
	// TokenID is the jti and Issued the iat (in Unix milliseconds) of the token, for its revocation.
	TokenID string `json:"jti,omitempty"`
	Issued  int64  `json:"iat,omitempty"`
	// Certificate reports that the credential is a certificate of Issuer, and Print the fingerprint of its
	// authority's. Earlier versions do not accept it: they know no such issuer.
	Certificate bool `json:"cert,omitempty"`
	// Chain identifies the certificates of the chain; earlier versions have none.
	Chain []certificateID `json:"chain,omitempty"`
	// Key is the id of the API key or the kid of the signing key, and Print the fingerprint of that
	// key.
	APIKey bool   `json:"api,omitempty"`
	Key    string `json:"key"`
	Print  string `json:"print"`
}

// Delegate returns the principal's rights for the tenant and the actions. It returns an error that
// wraps [ErrRevoked] if the principal's credential is no longer valid.
func (v *Verifier) Delegate(p *Principal, tenant contextkit.TenantID, actions ...string) (Delegate, error) {
	d := Delegate{Subject: p.Subject, Tenant: tenant.String(), Any: p.AnyTenant}
	for _, right := range p.Rights {
		if slices.Contains(actions, right.Action) {
			d.Rights = append(d.Rights, right.String())
		}
	}
	if !p.Until.IsZero() {
		d.Until = p.Until.UnixMilli()
	}
	switch {
	case v.Revoked(p):
		return d, ErrRevoked
	case p.apiKey != "":
		key, _ := v.apiKey(p.apiKey)
		d.APIKey, d.Key, d.Print = true, p.apiKey, key.print()
	case p.authority != nil:
		d.Certificate, d.Issuer, d.Print = true, p.iss, fingerprint(p.root)
		d.TokenID, d.Issued, d.Chain = p.tokenID, p.issued, p.chain
	case p.signer != nil:
		d.Issuer, d.Key, d.Print = p.issuer.Issuer, p.signer.id, p.signer.print()
		d.TokenID, d.Issued = p.tokenID, p.issued
	default:
		return d, ErrNoCredential
	}
	return d, nil
}

// Restore returns the principal of a delegate at the time now. Errors: [ErrExpired],
// [ErrRevoked] and [ErrUnknownStatus] as for the credential itself, and [ErrBadToken].
func (v *Verifier) Restore(d Delegate, now time.Time) (*Principal, error) {
	p := &Principal{Subject: d.Subject, AnyTenant: d.Any}
	if d.Tenant != "" {
		tenant, err := contextkit.ParseTenantID(d.Tenant)
		if err != nil {
			return nil, badToken("%w", err)
		}
		p.Tenants = []contextkit.TenantID{tenant}
	}
	for _, text := range d.Rights {
		right, err := ParseRight(text)
		if err != nil {
			return nil, badToken("%w", err)
		}
		p.Rights = append(p.Rights, right)
	}
	if d.Until != 0 {
		p.Until = time.UnixMilli(d.Until)
		if now.After(p.Until) {
			return nil, ErrExpired
		}
	}
	if d.APIKey {
		key, ok := v.apiKey(d.Key)
		if !ok || key.print() != d.Print {
			return nil, ErrRevoked
		}
		p.apiKey, p.origin = d.Key, key.principal
		return p, nil
	}
	p.tokenID, p.issued = d.TokenID, d.Issued
	if d.Certificate {
		p.restoreCertificate(v, d)
	} else {
		p.restoreToken(v, d)
	}
	if p.iss == "" || v.revoked.covers(p) {
		return nil, ErrRevoked
	}
	if p.authority != nil {
		if err := p.authority.Certificates.status(p.chain, now); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// restoreToken sets the origin of the principal of a token, if its issuer and key are still accepted.
func (p *Principal) restoreToken(v *Verifier, d Delegate) {
	issuer := v.issuerOf(d)
	if issuer == nil {
		return
	}
	if key := issuer.Keys.current.Load().byID[d.Key]; key != nil && key.print() == d.Print {
		p.issuer, p.signer, p.iss = issuer, key, issuer.Issuer
	}
}

// restoreCertificate sets the origin of the principal of a certificate, if its authority is still accepted.
func (p *Principal) restoreCertificate(v *Verifier, d Delegate) {
	for _, authority := range v.authorities {
		if authority.iss != d.Issuer {
			continue
		}
		if root := authority.Certificates.byFingerprint(d.Print); root != nil {
			p.authority, p.root, p.iss, p.chain = authority, root, authority.iss, d.Chain
		}
	}
}

// issuerOf returns the issuer of a delegate's token, nil if it is not accepted.
func (v *Verifier) issuerOf(d Delegate) *trusted {
	if d.Issuer != "" {
		return v.issuers[d.Issuer]
	}
	for _, issuer := range v.issuers {
		if issuer.Name == "" {
			return issuer
		}
	}
	return nil
}

// print returns a fingerprint of the configured key, which changes with the key.
func (k apiKey) print() string {
	text, err := json.Marshal(k.kept)
	if err != nil {
		return "" // not reached: it consists of texts and a time
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// print returns the fingerprint of the key (RFC 7638) for its algorithm.
func (k *signingKey) print() string {
	thumb, err := (&jose.JSONWebKey{Key: k.public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "" // not reached: its type is allowed
	}
	return hex.EncodeToString(thumb[:16]) + string(k.algorithm)
}
