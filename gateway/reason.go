package gateway

import (
	"errors"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
)

// Reason is the machine-readable reason for which the gateway rejects a call. The
// google.rpc.ErrorInfo of the answer, the labels of the metrics and the audit records share this
// vocabulary.
type Reason uint8

// Reasons of denials: the credential, the right or the tenant does not admit the call.
const (
	ReasonNone              Reason = iota // the call is not rejected
	ReasonNoCredential                    // the call has no credential
	ReasonBadCredential                   // the credential is invalid or revoked
	ReasonExpiredCredential               // the credential has expired
	ReasonMissingRight                    // the principal lacks the right
	ReasonTenantSuspended                 // operators have suspended the tenant
	ReasonTenantMismatch                  // the credential is not for the tenant
)

// Reasons of rejections by a limit.
const (
	ReasonRate        Reason = iota + ReasonTenantMismatch + 1 // the tenant's rate of calls
	ReasonConcurrency                                          // the caller's calls in flight
	ReasonStreams                                              // the caller's server streams
	ReasonBytes                                                // the bytes of the caller's messages
	ReasonFull                                                 // the capacity that all callers share
)

// ReasonBreakerOpen is the reason of a rejection by an open circuit breaker.
const ReasonBreakerOpen = ReasonFull + 1

var reasonNames = [...]rpc.ErrorReason{
	ReasonNone:              "",
	ReasonNoCredential:      rpc.ReasonNoCredential,
	ReasonBadCredential:     rpc.ReasonBadCredential,
	ReasonExpiredCredential: rpc.ReasonExpiredCredential,
	ReasonMissingRight:      rpc.ReasonMissingRight,
	ReasonTenantSuspended:   rpc.ReasonTenantSuspended,
	ReasonTenantMismatch:    rpc.ReasonTenantMismatch,
	ReasonRate:              rpc.ReasonRateLimit,
	ReasonConcurrency:       rpc.ReasonConcurrencyLimit,
	ReasonStreams:           rpc.ReasonStreamLimit,
	ReasonBytes:             rpc.ReasonBytesLimit,
	ReasonFull:              rpc.ReasonGatewayFull,
	ReasonBreakerOpen:       rpc.ReasonCircuitBreakerOpen,
}

// denialReasons are the reasons of denials.
var denialReasons = []Reason{
	ReasonNoCredential,
	ReasonBadCredential,
	ReasonExpiredCredential,
	ReasonMissingRight,
	ReasonTenantSuspended,
	ReasonTenantMismatch,
}

// String returns the reason's name in ErrorInfo, metrics and audit records; "" for ReasonNone.
func (r Reason) String() string { return string(r.errorReason()) }

// errorReason returns the reason in the vocabulary of the platform.
func (r Reason) errorReason() rpc.ErrorReason { return reasonNames[r] }

// isCredential reports whether the call was denied for its credential.
func (r Reason) isCredential() bool {
	return r == ReasonNoCredential || r == ReasonBadCredential || r == ReasonExpiredCredential
}

// credentialReason returns the reason of an [auth] error.
func credentialReason(err error) Reason {
	switch public := auth.Public(err); {
	case errors.Is(public, auth.ErrNoCredential):
		return ReasonNoCredential
	case errors.Is(public, auth.ErrExpired),
		errors.Is(public, auth.ErrExpiredTicket),
		errors.Is(public, auth.ErrExpiredCertificate):
		return ReasonExpiredCredential
	}
	return ReasonBadCredential
}

// limitReason returns the reason of a [limit] error.
func limitReason(err error) Reason {
	switch {
	case errors.Is(err, limit.ErrRate):
		return ReasonRate
	case errors.Is(err, limit.ErrStreams):
		return ReasonStreams
	case errors.Is(err, limit.ErrBytes):
		return ReasonBytes
	case errors.Is(err, limit.ErrFull):
		return ReasonFull
	}
	return ReasonConcurrency
}
