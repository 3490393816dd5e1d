// Package journal appends and reads the events of aggregates, and checks that none is lost.
//
// An append is all or nothing, checked against the aggregate's last event and acknowledged once the
// server has stored it, on disk if it syncs every write; appends that wait for such a server share a
// write ([GroupCommit]). What was acknowledged is read from then on, however far behind a
// replica is. [Integrity] compares the journal with a record outside its stream, so that damage and
// lost events are noticed and no sequence is used twice. What an event means is left to others.
//
// Sources: CloudEvents NATS protocol binding 1.0.2 (binary mode), NATS ADR-50 (atomic batch
// publish), ADR-31 (direct get).
package journal
