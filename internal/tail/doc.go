// Package tail delivers the journal's events to many tenants with a bounded number of JetStream consumers.
//
// A [Tail] reads the new events of all tenants with one consumer, which acknowledges nothing and never waits for a
// tenant. Each [Subscription] has a durable cursor, which its [Handler] stores. If a subscription cannot accept an
// event, because it is paused, slow or failing, or because its queue is full in count or bytes (backpressure), the
// event is dropped and read again later, from the cursor, by one of a bounded number of readers. A reader is a
// short-lived consumer that reads for up to [GroupSize] tenants in one pass of the journal. The cost of a pass depends
// on the size of the journal, and hardly on the number of tenants. A tenant that has more events to read than its queue
// holds is read separately, for a limited time per turn.
//
// Guarantees: each subscription receives every event of its tenant after its cursor, in the journal's order, and twice
// only if the cursor was read again after a failure. A tenant that is stuck does not delay other tenants. An idle
// subscription has no goroutine, timer, file descriptor or consumer. Queued events and events that are being applied
// are bounded in bytes over all subscriptions, and each subscription may use at most as much as is still free (dynamic
// thresholds, Choudhury and Hahne 1998). The package does not interpret events, and does not store cursors.
package tail
