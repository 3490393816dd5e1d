// Package runner runs the model's workflows: it reacts to events with commands
// to other aggregates, webhooks and waits, and undoes them when one is refused. It
// also serves the RunnerAdmin that operates it.
//
// What it promises: every trigger event is worked on until its instance has
// ended, across crashes; a step has its effect once, since its command or webhook
// bears an idempotency key made of instance and step; an instance ends completed, or
// with the steps before the refused one undone, or, when even that is refused,
// failed and kept as a dead letter.
//
// How: one runner at a time owns a tenant, by a lease that it holds and a cursor that names it
// (see ADR-0016). Trigger events come from the journal's tail; an instance is a record in a
// bucket that says which steps are done; the cursor lists the events that were begun and have not
// ended. A wait is a scheduled message, which is read when it is due and removed when it is done.
// A node's places go round its tenants, which may come and go while it runs. A runner that takes
// no more work finishes what it has begun within a bound, and leaves the rest to others. While
// runners of an earlier version are announced, durable consumers deliver events, as to those.
package runner
