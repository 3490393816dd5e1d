package rpc

import "google.golang.org/genproto/googleapis/rpc/errdetails"

// ErrorDomain is the domain of the platform's ErrorInfo details.
const ErrorDomain = "headgate"

// ErrorReason is the machine-readable reason of an error: the reason of its google.rpc.ErrorInfo (AIP-193) and, of
// denials and rejections, the label of metrics and the beginning of the reason in audit records. The constants are all
// of them; docs/errors.md describes each with its code and metadata.
type ErrorReason string

// Reasons of denials. The gateway denies a call, except ReasonWrongRole, which is a node's.
//
//nolint:gosec // names that contain "credential", not credentials
const (
	ReasonNoCredential      ErrorReason = "NO_CREDENTIAL"
	ReasonBadCredential     ErrorReason = "BAD_CREDENTIAL"
	ReasonExpiredCredential ErrorReason = "EXPIRED_CREDENTIAL"
	ReasonMissingRight      ErrorReason = "MISSING_RIGHT" // metadata: right, as ACTION:RESOURCE
	ReasonTenantSuspended   ErrorReason = "TENANT_SUSPENDED"
	ReasonTenantMismatch    ErrorReason = "TENANT_MISMATCH"
	ReasonWrongRole         ErrorReason = "WRONG_ROLE"
)

// Reasons of rejections by a bound, which protects other callers.
const (
	ReasonRateLimit            ErrorReason = "RATE_LIMIT"
	ReasonConcurrencyLimit     ErrorReason = "CONCURRENCY_LIMIT"
	ReasonStreamLimit          ErrorReason = "STREAM_LIMIT"
	ReasonBytesLimit           ErrorReason = "BYTES_LIMIT"
	ReasonGatewayFull          ErrorReason = "GATEWAY_FULL"
	ReasonCircuitBreakerOpen   ErrorReason = "CIRCUIT_BREAKER_OPEN"
	ReasonTooManyCalls         ErrorReason = "TOO_MANY_CALLS"
	ReasonTooManyWatches       ErrorReason = "TOO_MANY_WATCHES" // metadata: bound
	ReasonTooManyWatchers      ErrorReason = "TOO_MANY_WATCHERS"
	ReasonTooManySubscriptions ErrorReason = "TOO_MANY_SUBSCRIPTIONS"
	ReasonTooManyEventReads    ErrorReason = "TOO_MANY_EVENT_READS"
	ReasonTooManyReads         ErrorReason = "TOO_MANY_READS"
	ReasonSlowConsumer         ErrorReason = "SLOW_CONSUMER"
	ReasonResponseTooLarge     ErrorReason = "RESPONSE_TOO_LARGE"
	ReasonTenantResponseBytes  ErrorReason = "TENANT_RESPONSE_BYTES"
	ReasonNodeResponseBytes    ErrorReason = "NODE_RESPONSE_BYTES"
	ReasonStorageQuota         ErrorReason = "STORAGE_QUOTA" // metadata: scope, quota, limit, use
	ReasonTooManyRevocations   ErrorReason = "TOO_MANY_REVOCATIONS"
	ReasonTooManyAPIKeys       ErrorReason = "TOO_MANY_API_KEYS" //nolint:gosec // a name
)

// Reasons of rejected commands, and of aggregates that cannot be read.
const (
	ReasonRuleNotMet           ErrorReason = "RULE_NOT_MET"       // metadata: rule
	ReasonRuleNotEvaluated     ErrorReason = "RULE_NOT_EVALUATED" // metadata: rule
	ReasonVersionMismatch      ErrorReason = "VERSION_MISMATCH"   // metadata: current_version or current_revision
	ReasonIdempotencyKeyReused ErrorReason = "IDEMPOTENCY_KEY_REUSED"
	ReasonIntegerTooLarge      ErrorReason = "INTEGER_TOO_LARGE"
	ReasonStateTooLarge        ErrorReason = "STATE_TOO_LARGE" // metadata: bytes, max_bytes
	ReasonTooManyEvents        ErrorReason = "TOO_MANY_EVENTS" // metadata: max_events
	ReasonBatchRefused         ErrorReason = "BATCH_REFUSED"
	ReasonEventNotApplicable   ErrorReason = "EVENT_NOT_APPLICABLE"
	ReasonMessageUnreadable    ErrorReason = "MESSAGE_UNREADABLE"
	ReasonAggregateDamaged     ErrorReason = "AGGREGATE_DAMAGED"
)

// Reasons of the journal's state and of positions in it.
const (
	ReasonJournalEndMissing    ErrorReason = "JOURNAL_END_MISSING"
	ReasonJournalStoresNothing ErrorReason = "JOURNAL_STORES_NOTHING" // metadata: refusal
	ReasonJournalUnavailable   ErrorReason = "JOURNAL_UNAVAILABLE"
	ReasonSubscriptionEnded    ErrorReason = "SUBSCRIPTION_ENDED"
	ReasonPositionExpired      ErrorReason = "POSITION_EXPIRED" // metadata: field
	ReasonPositionNotReached   ErrorReason = "POSITION_NOT_REACHED"
)

// Reasons of views that cannot answer.
const (
	ReasonViewFailed       ErrorReason = "VIEW_FAILED"
	ReasonViewsBuilding    ErrorReason = "VIEWS_BUILDING"
	ReasonViewsMoved       ErrorReason = "VIEWS_MOVED"
	ReasonViewsDiskFull    ErrorReason = "VIEWS_DISK_FULL"
	ReasonViewsUnavailable ErrorReason = "VIEWS_UNAVAILABLE"
	ReasonPageTokenTooLong ErrorReason = "PAGE_TOKEN_TOO_LONG" //nolint:gosec // a name
)

// Reasons of operators' requests that the current state does not allow.
const (
	ReasonChangedConcurrently ErrorReason = "CHANGED_CONCURRENTLY"
	ReasonModelFromFile       ErrorReason = "MODEL_FROM_FILE"
	ReasonPlaced              ErrorReason = "PLACED"
	ReasonNotServed           ErrorReason = "NOT_SERVED"
	ReasonMoving              ErrorReason = "MOVING"
	ReasonObstacles           ErrorReason = "OBSTACLES"
	ReasonNotDrainable        ErrorReason = "NOT_DRAINABLE"
	ReasonLastNode            ErrorReason = "LAST_NODE"
	ReasonServesPlaced        ErrorReason = "SERVES_PLACED_TENANTS"
	ReasonRetiring            ErrorReason = "RETIRING"
	ReasonNoLoss              ErrorReason = "NO_LOSS"
	ReasonMessageIsEvent      ErrorReason = "MESSAGE_IS_EVENT"
	ReasonTooManySkips        ErrorReason = "TOO_MANY_SKIPS"
)

// Reason returns the ErrorInfo detail of a reason, with pairs of metadata.
func Reason(reason ErrorReason, pairs ...string) *errdetails.ErrorInfo {
	info := &errdetails.ErrorInfo{Reason: string(reason), Domain: ErrorDomain, Metadata: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		info.Metadata[pairs[i]] = pairs[i+1]
	}
	return info
}
