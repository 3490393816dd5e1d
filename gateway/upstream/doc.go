// Package upstream is the internal hop: Connect clients over grpc-go's HTTP/2
// stack, one channel an endpoint, in a bounded pool; and, to services of the same
// process, without a channel ([PoolConfig.Local],
// docs/decisions/0010-in-process-hop.md).
//
// [Transport] implements connect v2's Transport, so that contextkit's client
// and its interceptors work over it unchanged. Why grpc-go and not net/http:
// the hop costs a third less CPU (docs/decisions/0002-grpc-go-upstream.md).
package upstream
