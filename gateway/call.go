package gateway

import (
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc"
)

// Call is one call in the pipeline. Each stage adds its results to it.
type Call struct {
	// Method is the method called.
	Method *policy.Method
	// Info is the edge's connect.CallInfo of the call.
	Info *connect.CallInfo
	// Stream is the edge's stream.
	Stream connect.ServerStream
	// Principal is the caller, set by authenticate.
	Principal *auth.Principal
	// First is the request, or a stream's first message, set by receive; nil: the stream is
	// opened without one.
	First *frame.Frame
	// Tenant is the tenant of the call; zero: the platform. It is set by standing if credential,
	// header or path name the tenant, else by tenant.
	Tenant contextkit.TenantID
	// Resource is an excerpt of the resources that the policy's resource field names, or of the
	// denied one; set by authorize.
	Resource string
	// recorded is what the audit record of the call has of its request, set by receive; nil: nothing.
	recorded *recorded
	// Node is the node that answers the call, set by route.
	Node route.Node
	// Attempts counts the upstream calls.
	Attempts int
	// Waited is the time spent between attempts.
	Waited time.Duration
	// HasKey reports whether the request has an idempotency key.
	HasKey bool
	// BypassBreaker makes forward call the node although its breaker is open.
	BypassBreaker bool

	forwardsHeaders   bool   // the client sent headers that are forwarded to the node; set by headers
	platform          bool   // the caller is the platform; set by headers
	operationRecorded bool   // the audit record of an operator's call is written
	clientDeadline    bool   // the client's deadline is earlier than the policy's
	limited           bool   // a limit of the caller refused the call
	denied            Reason // why the call was denied

	// Values embedded in the call, to save their allocation.
	request, answer frame.Frame
	until           lazydeadline.Context
	upstream        connect.CallInfo // the last upstream call

	end           rpc.Outcome   // completed by conclude; Started is set from the start
	admittedAfter time.Duration // time from the call's start until the tenant's quota admitted it
	charge
}

// recorded is what an audit record has of a request.
type recorded struct {
	fields []auditlog.Field // that the request of an audited method sets
	reason string           // an excerpt of the field that the policy names as the operator's reason
}

// admittedAt returns when the tenant's quota admitted the call.
func (c *Call) admittedAt() time.Time { return c.end.Started.Add(c.admittedAfter) }

// deny marks the call as denied for the reason, which it adds to the error's details with metadata
// as key-value pairs.
func (c *Call) deny(reason Reason, err *connect.Error, metadata ...string) error {
	c.denied = reason
	return rpc.WithDetails(err, rpc.Reason(reason.errorReason(), metadata...))
}

// denyCredential denies the call for its credential.
func (c *Call) denyCredential(err error) error {
	c.denied = credentialReason(err)
	return unauthenticated(err)
}
