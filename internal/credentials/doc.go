// Package credentials stores what the platform decides about credentials: revocations of tokens, and the
// API keys that it has issued. Control writes them, and gateways follow them.
//
// Each value is sealed under a secret that control and gateways alone read, and bound to its bucket and
// key. NATS does not check to which subject a server publishes the answer to a request: a process that
// holds another role's seed can have a message stored under a key of these buckets. Such a value is
// rejected, and the value that was known before stays in effect.
//
// A change is never a deletion: a follower that misses a deletion, whose marker NATS removes after a
// minute, would continue to accept a revoked key. Values expire.
package credentials
