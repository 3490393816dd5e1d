package contextkit

import (
	"context"
	"errors"
	"fmt"
)

// ErrDuplicateTenant is returned when the tenant was written more than once: a
// second value is how a proxy and its backend come to disagree.
var ErrDuplicateTenant = errors.New("the tenant is given more than once")

// Metadata is what HTTP headers, gRPC metadata and Connect's headers have in
// common: named, multi-valued, case-insensitive.
type Metadata interface {
	// Values returns all values under key.
	Values(key string) []string
	// Set replaces the values under key.
	Set(key, value string)
}

// Extract reads the contract out of md, as an incoming call of HTTP, gRPC or
// Connect bears it, and completes it: a missing or unusable correlation or
// request id is replaced, a bad traceparent starts a new trace. A tenant that
// is duplicated or malformed is an error (it wraps [ErrInvalidTenant] or is
// [ErrDuplicateTenant]); an absent one is not, the caller decides whether it
// needs one.
func Extract(md Metadata) (RequestContext, error) {
	rc := RequestContext{
		CorrelationID: singleID(md, HeaderCorrelationID),
		RequestID:     singleID(md, HeaderRequestID),
		CausationID:   singleID(md, HeaderCausationID),
	}
	if values := md.Values(HeaderTraceparent); len(values) == 1 {
		// A bad value leaves the zero Traceparent: a new trace starts below.
		if tp, err := ParseTraceparent(values[0]); err == nil {
			rc.Traceparent = tp
			// Tracestate means nothing without the traceparent it belongs to (§4.3).
			rc.Tracestate = joinTracestate(md.Values(HeaderTracestate))
		}
	}
	if values := md.Values(HeaderTraceID); len(values) == 1 {
		rc.TraceID, _ = ParseTraceID(values[0])
	}
	tenant, err := extractTenant(md)
	if err != nil {
		return rc.complete(), err
	}
	rc.TenantID = tenant
	return rc.complete(), nil
}

// Inject writes the contract into md for the next hop and returns why ctx must
// not leave the process, if so.
func Inject(ctx context.Context, md Metadata) error {
	rc, err := outgoing(ctx)
	if err != nil {
		return err
	}
	if !rc.TenantID.IsZero() {
		md.Set(HeaderTenantID, rc.TenantID.String())
	}
	md.Set(HeaderCorrelationID, rc.CorrelationID)
	md.Set(HeaderTraceparent, rc.Traceparent.String())
	if rc.Tracestate != "" {
		md.Set(HeaderTracestate, rc.Tracestate)
	}
	md.Set(HeaderTraceID, rc.TraceID.String())
	md.Set(HeaderRequestID, rc.RequestID)
	if rc.CausationID != "" {
		md.Set(HeaderCausationID, rc.CausationID)
	}
	return nil
}

// InjectResponse writes the ids that a caller needs to ask about its call.
func InjectResponse(rc RequestContext, md Metadata) {
	md.Set(HeaderCorrelationID, rc.CorrelationID)
	md.Set(HeaderTraceparent, rc.Traceparent.String())
	md.Set(HeaderTraceID, rc.TraceID.String())
	md.Set(HeaderRequestID, rc.RequestID)
}

func extractTenant(md Metadata) (TenantID, error) {
	values := md.Values(HeaderTenantID)
	switch len(values) {
	case 0:
		return TenantID{}, nil
	case 1:
		tenant, err := ParseTenantID(values[0])
		if err != nil {
			return TenantID{}, fmt.Errorf("%s: %w", HeaderTenantID, err)
		}
		return tenant, nil
	}
	return TenantID{}, fmt.Errorf("%s: %w", HeaderTenantID, ErrDuplicateTenant)
}

// singleID returns the one usable value under key, or "" so that it is replaced.
func singleID(md Metadata, key string) string {
	values := md.Values(key)
	if len(values) != 1 || !validID(values[0]) {
		return ""
	}
	return values[0]
}
