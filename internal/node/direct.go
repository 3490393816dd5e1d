package node

import (
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
)

// directCalls records the calls that reach a node without passing a gateway, in AUDIT.
type directCalls struct {
	member   *member
	recorder *audit.Direct
}

func newDirectCalls(m *member) *directCalls {
	return &directCalls{member: m, recorder: audit.NewDirect(m.js, m.log)}
}

// record records a call. An admitted call counts for the tenant that it names, if the node serves it; a
// call that is denied names no tenant that anything has verified.
func (d *directCalls) record(rc contextkit.RequestContext, call rpc.Direct) {
	record := audit.Record{
		Time:          call.Started.UTC(),
		Decision:      "allowed",
		Principal:     call.Principal,
		Tenant:        rc.TenantID.String(),
		Procedure:     call.Procedure,
		Client:        rpc.HostOf(call.Client),
		Code:          rpc.CodeName(call.Err),
		CorrelationID: rc.CorrelationID,
		TraceID:       rc.TraceID.String(),
		RequestID:     rc.RequestID,
		Node:          d.member.id,
		Milliseconds:  float64(call.Took) / float64(time.Millisecond),
	}
	account := streams.AccountPlatform
	switch {
	case call.Refusal != nil:
		record.Decision, record.Reason = "denied", string(rpc.ReasonWrongRole)+": "+call.Refusal.Error()
		rc.TenantID = contextkit.TenantID{}
	case !rc.TenantID.IsZero() && d.member.tenants.Serves(rc.TenantID):
		account = streams.AccountOf(rc.TenantID)
	}
	kind := audit.DirectChange
	switch {
	case call.Refusal != nil:
		kind = audit.DirectDenial
	case call.ReadOnly:
		kind = audit.DirectRead
	}
	d.recorder.Record(rc, account, kind, record)
}
