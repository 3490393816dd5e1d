package gateway

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/rs/zerolog"
)

// conclude writes the call's line in the access log and, for a denial or an
// operation that asks for it, its audit record.
func (g *Gateway) conclude(ctx context.Context, call *Call, err error) {
	rc, _ := contextkit.FromContext(ctx)
	subject := ""
	if call.Principal != nil {
		subject = call.Principal.Subject
	}
	level := zerolog.InfoLevel
	if code := connect.CodeOf(err); err != nil && (code == connect.CodeInternal || code == connect.CodeDataLoss) {
		level = zerolog.ErrorLevel
	}
	if event := g.log.WithLevel(level); event.Enabled() {
		chassis.Identify(event, rc).Str("procedure", call.Method.Spec.Procedure).Str("protocol", call.Info.Protocol).Str("codec", call.Info.Codec).
			Str("code", chassis.CodeName(err)).Str("principal", subject).Str("node", call.Node.ID).Int("attempts", call.Attempts).
			Dur("ms", time.Since(call.start)).AnErr("error", err).Msg("call")
	}
	if call.Denied == "" && !call.Method.Audit {
		return
	}
	record := audit.Record{
		Time: time.Now().UTC(), Decision: "allowed", Principal: subject, Tenant: rc.TenantID.String(),
		Procedure: call.Method.Spec.Procedure, Right: call.Method.Right, Resource: call.Resource, Code: chassis.CodeName(err),
		CorrelationID: rc.CorrelationID, TraceID: rc.TraceID.String(), RequestID: rc.RequestID,
	}
	if call.Denied != "" {
		record.Decision, record.Reason = "denied", call.Denied
		if err != nil {
			record.Reason += ": " + err.Error()
		}
	}
	g.audit.Record(rc, record)
}
