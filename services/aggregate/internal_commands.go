package aggregate

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

// rightInternal is the action of the right to send commands that the model declares internal.
const rightInternal = "command.internal"

// permit rejects a command that the model declares internal, unless the gateway states that the caller has the right
// for it. No other right covers such a command. Error: PERMISSION_DENIED.
//
// A gateway of a version before this right states no rights. Then the platform's own credential, used by the runner,
// suffices, so that workflows continue during a rolling upgrade.
func permit(ctx context.Context, by rules, c command) error {
	if !c.rule.Internal {
		return nil
	}
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		rights := contextkit.RightsOf(info.RequestHeader())
		if rights.Allow(rightInternal, by.Name, c.rule.Name) ||
			!rights.Known() && contextkit.FromPlatform(info.RequestHeader()) {
			return nil
		}
	}
	name := by.Name + "." + c.rule.Name
	return rpc.WithDetails(
		connect.Errorf(connect.CodePermissionDenied, "the command %s is internal: the caller needs the right %q", name,
			rightInternal),
		rpc.Reason(rpc.ReasonMissingRight, "right", rightInternal+":"+name))
}
