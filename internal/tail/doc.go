// Package tail delivers the journal's events to many tenants with a bounded number of
// JetStream consumers.
//
// A [Tail] reads new events of all tenants by one consumer. A consumer is only a tail: it
// acknowledges nothing, and never waits for a tenant. Each [Subscription] has its own durable
// cursor, which its [Handler] stores. Events that a subscription does not take (it is paused,
// slow, failing, or its queue is full in count or bytes) are dropped and read again later, from
// its cursor, by a bounded number of readers. A reader is a short-lived consumer that reads for
// up to [GroupSize] tenants in one pass of the journal: what a pass costs depends on the
// journal's size, and hardly on the number of tenants. A tenant that has more to read than its
// queue holds is read alone, for a limited time per turn.
//
// What it guarantees: each subscription gets every event of its tenant after its cursor, in
// journal order, none twice unless the cursor was read again after a failure. A tenant that is
// stuck holds up no other. An idle subscription has no goroutine, timer, descriptor or consumer.
// Queued events and events that are being applied are bounded in bytes, shared by all
// subscriptions such that each may use at most as much as is still free (dynamic thresholds,
// Choudhury and Hahne 1998). What it leaves to others: what an event means, and to store
// cursors.
package tail
