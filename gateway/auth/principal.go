// Package auth authenticates callers: it verifies a bearer token and returns its [Principal] with
// tenants and rights.
//
// A token is accepted only if its signature, issuer, audience and times are valid under an
// asymmetric algorithm of the allow-list, with the key that its kid names among those of its
// issuer; the key determines the algorithm, never the token. A token has one accepted text. An API key is accepted, by
// the hash of its secret, while its source contains it unchanged. Authorization is left to the callers, with
// [Principal.Allows].
//
// Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (JWT best current practices),
// RFC 6750 (bearer tokens), RFC 7517 (JWK).
package auth

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rights"
)

// Principal is an authenticated caller.
type Principal struct {
	// Subject identifies the caller: "key:ID" for an API key, "anonymous" for a caller without a
	// credential, "NAME:SUBJECT" for a token of an issuer with a name or a certificate, the token's
	// subject otherwise. These sets are disjoint: a token's subject that reads like one of the others is
	// prefixed with "token:".
	Subject string
	// Tenants are the tenants that the caller acts for.
	Tenants []contextkit.TenantID
	// AnyTenant reports whether the caller acts for every tenant.
	AnyTenant bool
	// Rights are the rights of the caller.
	Rights []Right
	// Until is the time when the credential expires; the zero time: never.
	Until time.Time

	apiKey string      // the id of the API key; "" for other credentials
	origin *Principal  // the principal of the API key, if this one is restored from a [Delegate]; else nil
	issuer *trusted    // the issuer of the token, and
	signer *signingKey // the key that signed it; nil for other credentials

	authority *authority        // the authority of the certificate, and
	root      *x509.Certificate // its certificate that the chain ends with; nil for other credentials
	chain     []certificateID   // the certificates of the chain, that of the client first

	// For revocations; "" and 0 for API keys.
	iss     string // the iss of the token, or the authority
	tokenID string // the jti of the token, "" for none, or the serial number of the certificate
	issued  int64  // when the token or certificate was issued, in Unix milliseconds; 0: not known
}

// Actions of rights to send commands.
const (
	// ActionInternal is the action of the right to send commands that a model declares internal.
	ActionInternal = rights.ActionInternal
	// ActionSubmit is the action of the right to send commands that are not internal.
	ActionSubmit = rights.ActionSubmit
)

// ErrEnded returns the error of a call whose credential has expired.
func (p *Principal) ErrEnded() error {
	if p.authority != nil {
		return ErrExpiredCertificate
	}
	return ErrExpired
}

// Right is an action that may be narrowed to resources.
type Right = rights.Right

// ErrInvalidRight is wrapped by the error of an invalid right.
var ErrInvalidRight = rights.ErrInvalid

// ParseRight parses "action" or "action:resources". It accepts some rights that cannot match
// anything; [Right.Check] is stricter.
func ParseRight(text string) (Right, error) { return rights.Parse(text) }

// Holds reports whether the principal has the action for at least one resource.
func (p *Principal) Holds(action string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action })
}

// HoldsAll reports whether the principal has the action for all resources.
func (p *Principal) HoldsAll(action string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.Resources == "" })
}

// Allows reports whether the principal may perform the action on the resource; "": a call that
// names none.
func (p *Principal) Allows(action, resource string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.Covers(resource) })
}

// AllowsPart reports whether the principal may perform the action on a part of a resource, such as
// a command of an aggregate type. A right for the resource covers all of its parts.
func (p *Principal) AllowsPart(action string, resource, part []byte) bool {
	return slices.ContainsFunc(p.Rights,
		func(r Right) bool { return r.Action == action && r.CoversPart(resource, part) })
}

// RightTexts returns the rights as texts.
func (p *Principal) RightTexts() []string {
	texts := make([]string, len(p.Rights))
	for i, right := range p.Rights {
		texts[i] = right.String()
	}
	return texts
}

// CheckRights checks the rights of a credential before it is issued, see [Right.Check].
func (p *Principal) CheckRights() error {
	for _, right := range p.Rights {
		if err := right.Check(); err != nil {
			return err
		}
	}
	return nil
}

// ActsFor reports whether the principal acts for the tenant.
func (p *Principal) ActsFor(tenant contextkit.TenantID) bool {
	return p.AnyTenant || slices.Contains(p.Tenants, tenant)
}
