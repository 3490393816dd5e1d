// Package backbone is how services share events and work: NATS JetStream.
//
// It holds the embedded server for a single node, the definitions of streams
// and key-value buckets, the event envelope (CloudEvents over NATS plus the
// transport contract), the [Journal] that appends and reads an aggregate's
// events, the ordered subscription that projections follow, what nodes announce of
// themselves, what operators decide (a [Bucket] of placements, tenants, models), and
// what is remembered of calls ([Timeline], audit records).
//
// What it promises: an append is all or nothing, checked against the
// aggregate's last event and acknowledged once the server has stored it, on disk if it
// syncs every write; appends that wait for such a server share a write. What was
// acknowledged is read from then on, however far behind a replica is. What it leaves to
// others: what an event means.
//
// Sources: CloudEvents NATS protocol binding 1.0.2 (binary mode), NATS ADR-50
// (atomic batch publish), ADR-31 (direct get), ADR-8 (key-value buckets).
package backbone
