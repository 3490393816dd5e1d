package contextkit

import (
	"errors"
	"fmt"
	"slices"
)

// ErrInvalidKind is wrapped by every refusal of a kind of nodes.
var ErrInvalidKind = errors.New("invalid kind of nodes")

// Kind names what a node serves. Calls are routed by it: the policy of a method names the kind of the nodes that
// answer. Besides the platform's kinds there are those of other services behind the gateway, each with a name of
// letters, digits, '-' and '_' ([ParseKind]). A kind is a part of NATS subjects, ids and metric labels.
type Kind string

// The platform's kinds.
const (
	// KindGateway is the kind of gateways, to which no call is routed.
	KindGateway Kind = "gateway"
	// KindAggregate nodes decide on commands and append their events to the journal.
	KindAggregate Kind = "aggregate"
	// KindProjection nodes build views of events and answer queries.
	KindProjection Kind = "projection"
	// KindRunner nodes run the workflows of tenants.
	KindRunner Kind = "runner"
	// KindControl nodes serve operators, and no tenant.
	KindControl Kind = "control"
)

// platformKinds are the platform's kinds, the gateway first.
var platformKinds = []Kind{KindGateway, KindAggregate, KindProjection, KindRunner, KindControl}

// PlatformKinds returns the platform's kinds, the gateway first.
func PlatformKinds() []Kind { return slices.Clone(platformKinds) }

// ParseKind returns a name as a kind of nodes, or an error that wraps [ErrInvalidKind] and describes the fault.
func ParseKind(name string) (Kind, error) {
	if name == "" {
		return "", fmt.Errorf("%w: it is empty", ErrInvalidKind)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return "", fmt.Errorf("%w %q: want letters, digits, '-' and '_'", ErrInvalidKind, name)
		}
	}
	return Kind(name), nil
}

// Platform reports whether k is one of the platform's kinds.
func (k Kind) Platform() bool { return slices.Contains(platformKinds, k) }

// String returns the kind's name.
func (k Kind) String() string { return string(k) }
