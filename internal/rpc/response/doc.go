// Package response bounds the answers of a node in bytes: backpressure per tenant.
//
// [Size] returns the bytes that plain JSON values take on the wire, so that a list can end at
// a byte bound while it is built. A [Limiter] bounds the bytes of answers that a node holds
// for one tenant, and for all, from when they are built until their call has ended: a caller
// that does not read occupies its own tenant's share and no other's. A call beyond the share
// is rejected; it does not wait.
//
// The package does not write answers, and it does not count what transports buffer.
package response
