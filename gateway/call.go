package gateway

import (
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc"
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
	// First is the request, or a stream's first message, set by receive; nil: the stream is
	// opened without one.
	First *frame.Frame
	// Tenant is the tenant of the call, set by standing if credential, header or path name it,
	// else by tenant; zero: the platform.
	Tenant contextkit.TenantID
	// Resource is an excerpt of the resources that the policy's resource field names, or of
	// the one that is denied; set by authorize.
	Resource string
	// Reason is an excerpt of the operator's reason, in the field that the policy names; nil: the
	// request has none.
	Reason *string
	// Node answers, from route on.
	Node route.Node
	// Attempts counts the upstream calls.
	Attempts int
	// Waited is the time spent between attempts.
	Waited time.Duration
	// Keyed says that the request has an idempotency key.
	Keyed bool
	// Forced says that the node is called whatever its breaker says.
	Forced bool

	forwards bool // the client sent headers that go to the node; from headers on
	platform bool // the caller is the platform; from headers on
	recorded bool // in audit, as an operator's
	chosen   bool // the client chose a shorter time than the policy's
	limited  bool // a limit of its caller refused it
	denied   rule // the rule that denied it

	// What lies in the call, so that it is no object of its own.
	request, answer frame.Frame
	until           lazydeadline.Context
	hop             connect.CallInfo // of the node, in the last attempt

	end     rpc.Outcome   // from conclude on; before, when it began
	entered time.Duration // from the beginning until the tenant's quota admitted it
	charge
}

// enteredAt returns when the tenant's quota admitted the call.
func (c *Call) enteredAt() time.Time { return c.end.Started.Add(c.entered) }
