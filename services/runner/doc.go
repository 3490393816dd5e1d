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
// How: a durable consumer per tenant delivers trigger events; an instance is a
// record in a bucket that says which steps are done; an event is acknowledged
// once its instance has ended or waits. A wait is a scheduled message, delivered to
// a second durable consumer when it is time. A node's places go round its tenants,
// which may come and go while it runs. One that takes no more work finishes what it has
// begun within a bound, and hands the rest back.
package runner
