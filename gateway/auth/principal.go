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

// Principal is an authenticated caller.
type Principal struct {
	// Subject identifies the caller: "key:ID" for an API key, "anonymous" for a caller without a
	// credential, "NAME:SUBJECT" for a token of an issuer with a name, the token's subject
	// otherwise. These sets are disjoint: a token's subject that reads like one of the others is
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

	tokenID string // the jti of the token; "": none
	issued  int64  // when the token was issued, in Unix milliseconds; 0: not known
}

// ActionInternal is the action of the right to send commands that a model declares internal. It is
// narrowed to an aggregate type or a command, or not at all, but never by a wildcard.
const ActionInternal = "command.internal"

// ActionSubmit is the action of the right to send commands that are not internal.
const ActionSubmit = "command.submit"

// Right is an action that may be narrowed to resources.
type Right struct {
	// Action is an action such as "query.read".
	Action string
	// Resources is a resource's name, or a prefix with a final '*'. "" means all resources, and
	// calls that name none. Where a method's policy names parts of resources, it may be
	// RESOURCE.PART: "transfer.request" for a command of an aggregate type.
	Resources string
}

var (
	actionPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)
	// commandsPattern matches what rights of commands may be narrowed to: an aggregate type, one of
	// its commands, or a prefix of either with a final '*'.
	commandsPattern = regexp.MustCompile(
		`^(\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*|\.)?\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?)$`,
	)
)

// ErrInvalidRight is wrapped by the error of an invalid right.
var ErrInvalidRight = errors.New("invalid right")

// ParseRight parses "action" or "action:resources". It accepts some rights that cannot match
// anything; [Right.Check] is stricter.
func ParseRight(s string) (Right, error) {
	action, resources, narrowed := strings.Cut(s, ":")
	if !actionPattern.MatchString(action) {
		return Right{}, fmt.Errorf("%w %q: want an action such as query.read", ErrInvalidRight, s)
	}
	if narrowed && (resources == "" || strings.Contains(strings.TrimSuffix(resources, "*"), "*")) {
		return Right{}, fmt.Errorf("%w %q: want a resource after the colon, or a prefix with a final *",
			ErrInvalidRight, s)
	}
	right := Right{Action: action, Resources: resources}
	if action == ActionInternal {
		return right, right.Check()
	}
	return right, nil
}

// Check returns an error that wraps [ErrInvalidRight] for a right that no call needs, or that reads
// like another one: issuing it is a mistake. Resources other than those of commands may be any
// text, because paths are percent-decoded before they are matched ("shelves/a b"), without control
// and invisible characters, and without spaces at either end.
func (r Right) Check() error {
	if r.Resources == "" {
		return nil
	}
	switch r.Action {
	case ActionInternal:
		if strings.HasSuffix(r.Resources, "*") || !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: want AGGREGATE or AGGREGATE.COMMAND after the colon, without a wildcard",
				ErrInvalidRight, r)
		}
	case ActionSubmit:
		if !commandsPattern.MatchString(r.Resources) {
			return fmt.Errorf("%w %q: want AGGREGATE or AGGREGATE.COMMAND after the colon, or a prefix with a final *",
				ErrInvalidRight, r)
		}
	default:
		if !isPrintable(r.Resources) {
			return fmt.Errorf(
				"%w %q: a resource consists of printable characters in UTF-8, without spaces at either end",
				ErrInvalidRight, r,
			)
		}
	}
	return nil
}

// isPrintable reports whether a text is UTF-8 without control and format characters, without spaces
// other than U+0020, and without spaces at either end.
func isPrintable(text string) bool {
	return utf8.ValidString(text) && strings.TrimSpace(text) == text &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// String returns the right in the form that ParseRight parses.
func (r Right) String() string {
	if r.Resources == "" {
		return r.Action
	}
	return r.Action + ":" + r.Resources
}

// covers reports whether the right covers the resource; "": a call that names none.
func (r Right) covers(resource string) bool {
	if r.Resources == "" {
		return true
	}
	if beginning, ok := strings.CutSuffix(r.Resources, "*"); ok {
		return resource != "" && strings.HasPrefix(resource, beginning)
	}
	return r.Resources == resource
}

// coversPart reports whether the right covers a part of a resource. A resource whose own name has a
// dot is covered only by a right for all resources: the text before the dot of a right is the
// resource.
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
			return beginsWith(resource, beginning)
		}
		return string(resource) == name
	}
	if string(resource) != name || len(part) == 0 {
		return false
	}
	if beginning, ok := strings.CutSuffix(rest, "*"); ok {
		return beginsWith(part, beginning)
	}
	return string(part) == rest
}

func beginsWith(text []byte, beginning string) bool {
	return len(text) >= len(beginning) && string(text[:len(beginning)]) == beginning
}

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
	return slices.ContainsFunc(p.Rights, func(r Right) bool { return r.Action == action && r.covers(resource) })
}

// AllowsPart reports whether the principal may perform the action on a part of a resource, such as
// a command of an aggregate type. A right for the resource covers all of its parts.
func (p *Principal) AllowsPart(action string, resource, part []byte) bool {
	return slices.ContainsFunc(p.Rights,
		func(r Right) bool { return r.Action == action && r.coversPart(resource, part) })
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
