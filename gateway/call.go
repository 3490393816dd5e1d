package gateway

import (
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
)

// Call is one call on its way through the pipeline: each stage adds what it
// finds out.
type Call struct {
	// Method is the method called.
	Method *policy.Method
	// Info is the edge's side of the call.
	Info *connect.CallInfo
	// Stream is the edge's stream.
	Stream connect.ServerStream
	// Principal is who calls, from authenticate on.
	Principal *auth.Principal
	// First is the request, or a stream's first message, from receive on; nil: the
	// stream is opened without one.
	First *frame.Frame
	// Tenant is whose call it is: from standing on if credential, header or path name
	// it, else from tenant on; zero: the platform's.
	Tenant contextkit.TenantID
	// Resource is an excerpt of what the policy's resource field names, from authorize on; of
	// several, of all, or of the one that is denied.
	Resource string
	// Keyed says that the request has an idempotency key.
	Keyed bool
	// Node answers, from route on.
	Node route.Node
	// Forced says that the node is called whatever its breaker says.
	Forced bool
	// Attempts counts the upstream calls.
	Attempts int
	// Waited is the time spent between attempts.
	Waited time.Duration
	// Denied says which rule refused the call, "" for none.
	Denied string

	recorded bool // in audit, as an operator's

	// What lies in the call, so that it is no object of its own.
	request, answer frame.Frame
	until           contextkit.Until
	hop             connect.CallInfo // of the node, in the last attempt

	// longest is the policy's bound of the call's time, and chosen says that the client
	// has chosen a shorter one.
	longest time.Duration
	chosen  bool

	end     chassis.Ended // from conclude on; before, when it began
	entered time.Time     // when the tenant's quota admitted it
	charge
	limited bool // a limit of its caller refused it
}
