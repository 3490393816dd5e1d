// Package streams defines the platform's JetStream streams and key-value buckets: their names, subjects,
// limits, formats, and the accounts that records count against.
//
// [Ensure] creates one stream or brings it up to its definition: it never lowers a limit that an
// operator has set, and refuses data of a newer version ([format.NewerError]). Package setup does
// so for all of them.
//
// Sources: NATS ADR-8 (key-value buckets), ADR-43 (TTLs of messages).
package streams
