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
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	origin *Principal  // of the API key, if this one is restored from a [Delegate], else nil
	signer *signingKey // the key that signed the credential if it is a token, else nil
}

// ActionInternal is the action of the right to send commands that a model declares internal.
// It is narrowed to an aggregate type or a command, or to nothing; never by a wildcard.
const ActionInternal = "command.internal"

// ActionSubmit is the action of the right to send commands that are not internal.
const ActionSubmit = "command.submit"

// Right is an action, narrowed to resources or not.
type Right struct {
	// Action is such as "query.read".
	Action string
	// Resources is a resource's name, or its beginning with a final '*'. ""
	// means all, and calls that name none. Where a method's policy names parts of resources,
	// it may be RESOURCE.PART: "transfer.request" for a command of an aggregate type.
	Resources string
}

var (
	actionPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)
	// commandsPattern is what the rights of commands are narrowed to: an aggregate type, one of
	// its commands, or the beginning of either with a final '*'.
	commandsPattern = regexp.MustCompile(`^(\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*|\.)?\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?)$`)
)

// ErrInvalidRight is wrapped by a refusal of a right.
var ErrInvalidRight = errors.New("invalid right")

// ParseRight parses "action" or "action:resources". A right that cannot match anything may pass;
// [Right.Check] is stricter.
func ParseRight(s string) (Right, error) {
	action, resources, narrowed := strings.Cut(s, ":")
	if !actionPattern.MatchString(action) {
		return Right{}, fmt.Errorf("%w %q: an action is such as query.read", ErrInvalidRight, s)
	}
	if narrowed && (resources == "" || strings.Contains(strings.TrimSuffix(resources, "*"), "*")) {
		return Right{}, fmt.Errorf("%w %q: after the colon stands a resource, or its beginning with a final *", ErrInvalidRight, s)
	}
	right := Right{Action: action, Resources: resources}
	if action == ActionInternal {
		return right, right.Check()
	}
	return right, nil
}

// Check returns an error that wraps [ErrInvalidRight] for a right that no call needs, or that reads
// like another one: such a right is a mistake where it is issued. Resources other than those of commands are
// any text, since paths are percent-decoded before they are matched ("shelves/a b"), but control and
// invisible characters, and spaces at either end.
func (r Right) Check() error {
	if r.Resources == "" {
		return nil
	}
	switch r.Action {
	case ActionInternal:
		if strings.HasSuffix(r.Resources, "*") || !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: after the colon stands AGGREGATE or AGGREGATE.COMMAND, without a wildcard", ErrInvalidRight, r)
		}
	case ActionSubmit:
		if !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: after the colon stands AGGREGATE or AGGREGATE.COMMAND, or its beginning with a final *", ErrInvalidRight, r)
		}
	default:
		if !isPrintable(r.Resources) {
			return fmt.Errorf("%w %q: a resource consists of printable characters in UTF-8, without spaces at either end", ErrInvalidRight, r)
		}
	}
	return nil
}

// isPrintable reports whether a text is UTF-8 without control and format characters, without spaces
// other than U+0020, and without that at either end.
func isPrintable(text string) bool {
	return utf8.ValidString(text) && strings.TrimSpace(text) == text &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
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

// coversPart reports whether the right is for a part of a resource. A resource that has a dot
// itself is covered by a right for all resources alone: what stands before the dot of a right is
// the resource.
func (r Right) coversPart(resource, part []byte) bool {
	if r.Resources == "" {
		return true
	}
	if len(resource) == 0 || bytes.IndexByte(resource, '.') >= 0 {
		return false
	}
	name, rest, dotted := strings.Cut(r.Resources, ".")
	if !dotted {
		if beginning, ok := strings.CutSuffix(name, "*"); ok {
			return len(resource) >= len(beginning) && string(resource[:len(beginning)]) == beginning
		}
		return string(resource) == name
	}
	if string(resource) != name || len(part) == 0 {
		return false
	}
	if beginning, ok := strings.CutSuffix(rest, "*"); ok {
		return len(part) >= len(beginning) && string(part[:len(beginning)]) == beginning
	}
	return string(part) == rest
}

// Holds reports whether the principal has the action for any resource at all.
func (p *Principal) Holds(action string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action })
}

// HoldsAll reports whether the principal has the action for all resources.
func (p *Principal) HoldsAll(action string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.Resources == "" })
}

// Allows reports whether the principal may do the action to the resource, ""
// for none.
func (p *Principal) Allows(action, resource string) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.covers(resource) })
}

// AllowsPart reports whether the principal may do the action to a part of a resource, such as a
// command of an aggregate type. A right for the resource covers all of its parts.
func (p *Principal) AllowsPart(action string, resource, part []byte) bool {
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.coversPart(resource, part) })
}

// CheckRights checks the rights of a credential that is to be issued, see [Right.Check].
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
