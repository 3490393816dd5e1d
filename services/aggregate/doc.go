// Package aggregate is the command side: it decides commands by the tenant's
// model and appends the events that follow to the journal.
//
// What it promises: all of a command's events are appended or none; a decision
// stands on the aggregate's newest events; the same idempotency key has its
// effect once, and its answer for as long as keys are remembered. An acknowledged
// command is in the journal, which is on disk as NATS is told to sync.
//
// How: an aggregate's state is folded from its events and kept, with a bound,
// under its version; the append names the last event that the decision saw, so
// a stale state costs a retry and never a wrong event. The journal itself
// remembers which command caused an event, so a crash between an append and
// anything after it forgets nothing. Keys of older commands are kept by the page,
// and pages by the chapter (docs/guarantees.md: for how long, and how many).
package aggregate
