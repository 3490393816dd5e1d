// Package upstream makes upstream calls: from the gateway to a node, by Connect clients over gRPC.
// It
// keeps one channel per endpoint ([h2]) in a bounded pool, and calls services of the same process
// without a channel ([PoolConfig.Local], docs/decisions/0010-in-process-hop.md).
//
// [Transport] implements the Transport of connect v2, so that contextkit's client and its
// interceptors work over it unchanged (docs/decisions/0002-grpc-go-upstream.md). The gateway makes
// its calls with [Transport.Open], which takes the transport contract as a header.
package upstream
