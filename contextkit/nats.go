package contextkit

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// InjectNATS writes the contract into a message's headers. It returns an error if ctx must not leave
// the process. Both names of the correlation id are
// written.
func InjectNATS(ctx context.Context, header nats.Header) error {
	rc, err := outgoing(ctx)
	if err != nil {
		return err
	}
	if !rc.TenantID.IsZero() {
		header.Set(NATSTenantID, rc.TenantID.String())
	}
	header.Set(NATSCorrelationID, rc.CorrelationID)
	header.Set(natsCorrelationIDFirst, rc.CorrelationID)
	header.Set(NATSTraceparent, rc.traceparent())
	if rc.Tracestate != "" {
		header.Set(NATSTracestate, rc.Tracestate)
	}
	header.Set(NATSTraceID, rc.TraceIDText())
	header.Set(NATSRequestID, rc.RequestID)
	if rc.CausationID != "" {
		header.Set(NATSCausationID, rc.CausationID)
	}
	if rc.Depth > 0 {
		header.Set(NATSCausationDepth, formatDepth(rc.Depth))
	}
	return nil
}

// ErrForeignTenant reports that a message names another tenant than its subject.
var ErrForeignTenant = errors.New("the message names another tenant than its subject")

// ExtractNATS reads the contract out of a message's headers, by the rules of
// [Extract]. A message without a tenant is a platform message.
func ExtractNATS(header nats.Header) (RequestContext, error) {
	rc := extractNATS(header, "")
	switch values := header[NATSTenantID]; len(values) {
	case 0:
		rc.Platform = true
	case 1:
		tenant, err := ParseTenantID(values[0])
		if err != nil {
			return rc, fmt.Errorf("%s: %w", NATSTenantID, err)
		}
		rc.TenantID = tenant
	default:
		return rc, fmt.Errorf("%s: %w", NATSTenantID, ErrDuplicateTenant)
	}
	return rc, nil
}

// ExtractNATSOf is [ExtractNATS] for a message whose subject names its tenant: its header may be
// missing or empty, and must not name another one ([ErrForeignTenant]). correlation is its
// correlation id if the headers have none.
func ExtractNATSOf(header nats.Header, tenant TenantID, correlation string) (RequestContext, error) {
	rc := extractNATS(header, correlation)
	rc.TenantID = tenant
	switch values := header[NATSTenantID]; {
	case len(values) > 1:
		return rc, fmt.Errorf("%s: %w", NATSTenantID, ErrDuplicateTenant)
	case len(values) == 1 && values[0] != "" && values[0] != tenant.name:
		return rc, fmt.Errorf("%w: %.80q and %q", ErrForeignTenant, values[0], tenant.name)
	}
	return rc, nil
}

// extractNATS reads what the headers have beside the tenant.
func extractNATS(header nats.Header, correlation string) RequestContext {
	rc := RequestContext{
		CorrelationID: natsID(header, NATSCorrelationID),
		RequestID:     natsID(header, NATSRequestID),
		CausationID:   natsID(header, NATSCausationID),
		Depth:         parseDepth(header[NATSCausationDepth]),
	}
	if rc.CorrelationID == "" {
		rc.CorrelationID = natsID(header, natsCorrelationIDFirst)
	}
	if rc.CorrelationID == "" {
		rc.CorrelationID = correlation
	}
	rc.Traceparent, rc.Tracestate = extractTrace(header[NATSTraceparent], header[NATSTracestate])
	if values := header[NATSTraceID]; len(values) == 1 {
		rc.TraceID, _ = ParseTraceID(values[0])
	}
	if rc.CorrelationID != "" && rc.RequestID != "" {
		rc.setTrace() // most readers of events make no calls
	} else {
		rc.complete()
	}
	return rc
}

func natsID(header nats.Header, key string) string {
	values := header[key]
	if len(values) != 1 || !ValidID(values[0]) {
		return ""
	}
	return values[0]
}
