// Package kv reads, changes and follows key-value buckets of JSON values.
//
// A change is compared with the revision that it was made for ([ErrChanged]). Reads of single keys
// are answered by the bucket's leader, so that they see every acknowledged change. Every change
// carries the transport contract. [SharedSecret] creates a secret once for all nodes.
//
// Source: NATS ADR-8 (key-value buckets).
package kv
