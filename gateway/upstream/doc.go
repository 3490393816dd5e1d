// Package upstream is the internal hop: Connect clients over gRPC, one channel an
// endpoint ([h2]), in a bounded pool; and, to services of the same process, without a
// channel ([PoolConfig.Local], docs/decisions/0010-in-process-hop.md).
//
// [Transport] implements connect v2's Transport, so that contextkit's client
// and its interceptors work over it unchanged
// (docs/decisions/0002-grpc-go-upstream.md). The gateway opens its own calls by
// [Transport.Open], with the contract in what it hands over.
package upstream
