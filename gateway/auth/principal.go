// Package auth says who calls: it turns a bearer token into a [Principal] with
// tenants and rights.
//
// A token counts only if its signature, issuer, audience and times are valid under an
// asymmetric algorithm of the allow-list, with the key that its kid names; the
// algorithm is the key's, never the token's choice. A token has one accepted text. An
// API key counts, with the hash of its secret, while its source contains it unchanged.
// What the principal may do is decided elsewhere, with [Principal.Allows].
//
// Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (JWT best current practices),
// RFC 6750 (bearer tokens), RFC 7517 (JWK).
package auth

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// Principal is who calls.
type Principal struct {
	// Subject names the caller: "key:ID" for an API key, "anonymous" for a caller
	// without a credential, the token's subject otherwise. The three sets are disjoint: a
	// token's subject that reads like one of the others is written after "token:".
	Subject string
	// Tenants are those that the caller acts for.
	Tenants []contextkit.TenantID
	// AnyTenant says that the caller acts for every tenant.
	AnyTenant bool
	// Rights are what the caller may do.
	Rights []Right
	// Until is when the credential ceases to count; the zero time: never.
	Until time.Time

	apiKey string      // the id of the credential if it is an API key, else ""
	signer *signingKey // the key that signed the credential if it is a token, else nil
}

// Right is an action, narrowed to resources or not.
type Right struct {
	// Action is such as "query.read".
	Action string
	// Resources is a resource's name, or its beginning with a final '*'. ""
	// means all, and calls that name none.
	Resources string
}

var actionPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)

// ErrInvalidRight is wrapped by a refusal of a right.
var ErrInvalidRight = errors.New("invalid right")

// ParseRight parses "action" or "action:resources".
func ParseRight(s string) (Right, error) {
	action, resources, narrowed := strings.Cut(s, ":")
	if !actionPattern.MatchString(action) {
		return Right{}, fmt.Errorf("%w %q: an action is such as query.read", ErrInvalidRight, s)
	}
	if narrowed && (resources == "" || strings.Contains(strings.TrimSuffix(resources, "*"), "*")) {
		return Right{}, fmt.Errorf("%w %q: after the colon stands a resource, or its beginning with a final *", ErrInvalidRight, s)
	}
	return Right{Action: action, Resources: resources}, nil
}

// String returns the right as ParseRight takes it.
func (r Right) String() string {
	if r.Resources == "" {
		return r.Action
	}
	return r.Action + ":" + r.Resources
}

// covers reports whether the right is for the resource; "" names none.
func (r Right) covers(resource string) bool {
	if r.Resources == "" {
		return true
	}
	if beginning, ok := strings.CutSuffix(r.Resources, "*"); ok {
		return resource != "" && strings.HasPrefix(resource, beginning)
	}
	return r.Resources == resource
}

// Holds reports whether the principal has the action for any resource at all.
func (p *Principal) Holds(action string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action })
}

// Allows reports whether the principal may do the action to the resource, ""
// for none.
func (p *Principal) Allows(action, resource string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.covers(resource) })
}

// ActsFor reports whether the principal acts for the tenant.
func (p *Principal) ActsFor(tenant contextkit.TenantID) bool {
	return p.AnyTenant || slices.Contains(p.Tenants, tenant)
}
