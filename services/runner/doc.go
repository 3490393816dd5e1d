// Package runner runs the model's workflows: it reacts to events with commands to other aggregates, webhooks and
// waits, and compensates completed steps when one is refused. It also serves RunnerAdmin, by which it is operated.
//
// Guarantees: every trigger event is processed until its instance has ended, across crashes; a step takes effect
// once, since its command or webhook has an idempotency key derived from instance and step; an instance ends
// completed, or with the steps before the refused one compensated, or, if a compensation is refused too, failed and
// stored as a dead letter.
//
// One runner at a time owns a tenant, by a lease and a cursor that names the lease (ADR-0016). Trigger events come
// from the journal's tail. An instance is a record in a bucket with the completed steps; the cursor lists the events
// that were started and have not ended. A wait is a scheduled message, which is read when it is due and removed when
// it is processed. The tenants of a node share its concurrency limit in turns; the set of tenants may change while
// the node runs. A draining runner finishes its work in progress within a bound, and leaves the rest to other
// runners. While runners of an earlier version are announced, events are delivered by durable consumers instead, as
// those versions do.
package runner
