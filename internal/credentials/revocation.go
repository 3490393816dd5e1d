package credentials

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

// Bounds of revocations, withdrawn ones included.
const (
	// MaxRevocations bounds their number, MaxTenantRevocations the number of one tenant, and
	// MaxAllTenantRevocations that of all tenants.
	MaxRevocations          = 9_000
	MaxTenantRevocations    = 100
	MaxAllTenantRevocations = MaxRevocations / 2
	// MaxRevocationBytes bounds the bytes of their records, and MaxRevocationTexts those of the issuer,
	// token id and subject of each one. Gateways reject longer ones.
	MaxRevocationBytes = 16 << 20
	MaxRevocationTexts = 768
	// MaxTokenID bounds the id of a token, in bytes.
	MaxTokenID = 255
)

const (
	// MaxTokenLifetime is the longest lifetime of a token that gateways accept, and so the longest time for
	// which a revocation is stored.
	MaxTokenLifetime = 366 * 24 * time.Hour
	// WithdrawnFor is how long the record of a withdrawn revocation is stored, so that every gateway
	// receives it.
	WithdrawnFor = 24 * time.Hour
)

// CertificatesIssuer is the beginning of the issuer of clients' certificates, which the name of their authority in the
// settings follows. The TokenID of such a revocation is that of [CertificateID].
const CertificatesIssuer = "certificates:"

// Revocation is the record of a revocation of tokens: of the token with an id, or of all tokens of a
// subject or of an issuer that were issued before a time.
type Revocation struct {
	// Tenant limits it to principals that act for this tenant alone; "": it covers all.
	Tenant string `json:"tenant,omitempty"`
	// Issuer is the iss and TokenID the jti of the tokens, and Subject the subject of their principal.
	Issuer  string `json:"issuer,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	Subject string `json:"subject,omitempty"`
	// IssuedBefore is the time before which the tokens were issued; zero with a TokenID.
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	// Expires is when the last of the tokens has expired.
	Expires time.Time `json:"expires"`
	// Withdrawn reports that it has no effect.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// By is the subject of the caller that changed it last, Reason the reason and Time the time.
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// ID returns the id of all revocations of the same tokens: its key in [streams.BucketRevocations].
func (r Revocation) ID() string {
	text, err := json.Marshal([]string{r.Tenant, r.Issuer, r.TokenID, r.Subject})
	if err != nil {
		return "" // not reached: texts are valid JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// OfCertificate reports whether it is of a single certificate.
func (r Revocation) OfCertificate() bool {
	return r.TokenID != "" && strings.HasPrefix(r.Issuer, CertificatesIssuer)
}

// until returns when the record is no longer needed.
func (r Revocation) until() time.Time { return r.Expires }
