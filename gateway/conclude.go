package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/traffic"
)

// conclude ends a call: it writes the access log line, calls Config.OnEnd, records a span in the
// timeline and, for a denial or an audited operation, writes the audit record.
func (g *Gateway) conclude(ctx context.Context, log *zerolog.Logger, call *Call, err error) {
	rc := contextkit.In(ctx)
	if err != nil {
		g.explain(ctx, call, err)
	}
	subject := ""
	if call.Principal != nil {
		subject = excerpt.Text(call.Principal.Subject, excerpt.Name)
	}
	call.end.Took, call.end.Err = time.Since(call.end.Started), err
	g.countTraffic(rc, call)
	if event := log.WithLevel(rpc.LineLevel(zerolog.InfoLevel, err)); event.Enabled() {
		event = rpc.Took(rpc.Identify(event, rc),
			call.end.Took).Str("protocol", call.Info.Protocol).Str("codec", call.Info.Codec).
			Str("code", rpc.CodeName(err)).Str("principal", subject).Str("client",
			rpc.ClientText(call.Info)).Str("node", call.Node.ID).Int("attempts", call.Attempts)
		if err != nil {
			event = event.AnErr("error", err).AnErr("cause", errors.Unwrap(err))
		}
		event.Msg("call")
	}
	if call.Method.Spec.StreamType != connect.StreamTypeUnary && call.Attempts > 0 {
		g.counters.streams.WithLabelValues(string(call.streamEnd(err))).Inc()
	}
	if g.config.OnEnd != nil {
		ended := Ended{
			Ended:     rpc.Ended{Outcome: call.end},
			Principal: subject,
			Node:      call.Node.ID,
			Attempts:  call.Attempts,
			Request:   edge.RequestOf(call.Stream),
		}
		ended.Server, ended.Client = rpc.Ends(ctx, call.Info)
		g.config.OnEnd(*rc, ended)
	}
	if err != nil || call.Method.Spec.IdempotencyLevel == connect.IdempotencyUnknown || call.Method.Audit {
		g.recordSpan(rc, call, err)
	}
	switch {
	case call.denied != ReasonNone:
		g.counters.denied.WithLabelValues(call.denied.String()).Inc()
		g.audit.Deny(*rc, call.account(rc), g.auditRecord(rc, call, err))
	case call.operationRecorded:
	case call.Method.Audit && call.auditClass() != auditlog.ClassRead:
		g.audit.Record(*rc, call.account(rc), call.auditClass(), g.auditRecord(rc, call, err))
	case g.isOperatorCall(call):
		g.recordOperation(rc, call, err)
	}
}

// countTraffic counts the call in the series of the platform and of the tenant that pays for it.
func (g *Gateway) countTraffic(rc *contextkit.RequestContext, call *Call) {
	counted := traffic.Call{
		Ended:   call.end.Started.Add(call.end.Took),
		Took:    call.end.Took,
		Stream:  call.Method.Spec.StreamType != connect.StreamTypeUnary,
		Failed:  call.end.OwnFault(),
		Limited: call.limited,
		Command: call.Method.Upstream == contextkit.KindAggregate &&
			call.Method.Spec.IdempotencyLevel == connect.IdempotencyUnknown,
		Query: call.Method.Upstream == contextkit.KindProjection,
	}
	if !rc.TenantID.IsZero() && call.Principal != nil && call.Principal.ActsFor(rc.TenantID) {
		counted.Tenant = rc.TenantID.String()
	}
	g.traffic.Observe(counted)
}

// isOperatorCall reports whether the call is an operator's, whose audit records are bounded in
// rate: a call by a principal that acts for every tenant, and either audited by the method's
// policy, or for a tenant by a principal that is not configured as the platform's.
func (g *Gateway) isOperatorCall(call *Call) bool {
	if call.Principal == nil || !call.Principal.AnyTenant {
		return false
	}
	return call.Method.Audit || call.Method.Tenant && !g.isPlatform(call.Principal)
}

// isPlatform reports whether the principal is configured as the platform's and acts for every
// tenant. A token of one tenant with the same subject is not the platform's.
func (g *Gateway) isPlatform(principal *auth.Principal) bool {
	return principal != nil && principal.AnyTenant && g.platform[principal.Subject]
}

// recordOperation writes the audit record of an operator's call that was not denied, unless its
// principal exceeds the rate of records.
func (g *Gateway) recordOperation(rc *contextkit.RequestContext, call *Call, err error) {
	call.operationRecorded = true
	class := call.auditClass()
	if admission, ok := g.audit.Admit(class, call.Principal.Subject); ok {
		g.audit.Operate(*rc, call.account(rc), class, g.auditRecord(rc, call, err), admission)
	}
}

// account returns the account that pays for the call's audit records and spans: that of the named
// tenant if the credential is for it, else that of the credential. Callers cannot charge a tenant
// for which they have no credential.
func (c *Call) account(rc *contextkit.RequestContext) streams.Account {
	principal := c.Principal
	switch {
	case principal == nil:
	case !rc.TenantID.IsZero() && principal.ActsFor(rc.TenantID):
		return streams.AccountOf(rc.TenantID)
	case principal.AnyTenant:
		return streams.AccountPlatform
	case len(principal.Tenants) > 0:
		return streams.AccountOf(principal.Tenants[0])
	}
	return streams.AccountUnauthenticated
}

// auditClass returns the class of the audit record of a call that was not denied.
func (c *Call) auditClass() auditlog.Class {
	switch {
	case c.Principal == nil || !c.Principal.AnyTenant:
		return auditlog.ClassTenant
	case c.Method.Spec.IdempotencyLevel == connect.IdempotencyNoSideEffects:
		return auditlog.ClassRead
	}
	return auditlog.ClassOperator
}

// recordSpan records the call in the timeline.
func (g *Gateway) recordSpan(rc *contextkit.RequestContext, call *Call, err error) {
	span := timeline.Span{
		Kind:         timeline.KindCall,
		Name:         call.Method.Spec.Procedure,
		Started:      call.end.Started,
		Milliseconds: float64(call.end.Took.Microseconds()) / 1000,
		Code:         rpc.CodeName(err),
		Detail:       call.Info.Protocol,
		Client:       rpc.ClientText(call.Info),
	}
	if call.Node.ID != "" {
		span.Detail += " to " + call.Node.ID
	}
	if call.Attempts > 1 {
		span.Detail += fmt.Sprintf(", %d attempts", call.Attempts)
	}
	if err != nil {
		span.Detail += ": " + rpc.Public(err).Message()
	}
	g.config.Timeline.RecordFor(rc, call.account(rc), span)
}

// auditRecord returns the audit record of a call, within the bounds of [audit.Record].
func (g *Gateway) auditRecord(rc *contextkit.RequestContext, call *Call, err error) audit.Record {
	record := audit.Record{
		Time:          time.Now().UTC(),
		Decision:      "allowed",
		Tenant:        rc.TenantID.String(),
		Procedure:     call.Method.Spec.Procedure,
		Right:         call.Method.Right,
		Resource:      credentials.Mask(call.Resource),
		Client:        rpc.ClientText(call.Info),
		Code:          rpc.CodeName(err),
		CorrelationID: rc.CorrelationID,
		TraceID:       rc.TraceID.String(),
		RequestID:     rc.RequestID,
		Node:          call.Node.ID,
		Attempts:      call.Attempts,
		Waited:        float64(call.Waited.Microseconds()) / 1000,
		Milliseconds:  float64(time.Since(call.end.Started).Microseconds()) / 1000,
	}
	if right, ok := missingRight(call.Method, err); ok {
		record.Right = right.Action
	}
	if call.Principal != nil {
		record.Principal = call.Principal.Subject
	}
	if call.Node.ID != "" {
		record.Routing = g.routes.Epoch()
	}
	record.Read = call.Method.Spec.IdempotencyLevel == connect.IdempotencyNoSideEffects
	if call.Method.Audit {
		record.Changes = changesOf(call)
	}
	if call.recorded != nil {
		record.Request, record.Reason = call.recorded.fields, call.recorded.reason
	}
	if call.denied != ReasonNone {
		record.Decision, record.Reason = "denied", call.denied.String()
		if err != nil {
			record.Reason += ": " + credentials.Mask(err.Error())
			if mapping, ok := errors.AsType[*auth.MappingError](err); ok { // it quotes no claims
				record.Reason += ": " + mapping.Error()
			}
		}
	}
	return record.Bounded()
}
