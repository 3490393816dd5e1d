// Package aggregate implements the command side: it decides commands by the tenant's model and appends the resulting
// events to the journal.
//
// Guarantees: a command appends all of its events or none; a decision is based on the newest events of its aggregate
// (optimistic concurrency); a command with an idempotency key takes effect once, and a retry receives the stored
// answer for as long as keys are remembered. An acknowledged command is in the journal, which is as durable as the
// sync setting of NATS makes it.
//
// The service folds an aggregate's events into its state and caches the state, within a bound, with its version. An
// append names the last event that the decision has seen, so a stale cached state costs a retry and never appends a
// wrong event. Each event carries the idempotency key of its command, so a crash after an append loses no key.
// Package idempotency stores the answers of keys, package tenantcache bounds the memory of all tenants' aggregates
// (docs/guarantees.md states retention and limits).
package aggregate
