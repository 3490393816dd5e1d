// Package rpc is the server and the in-process transport of every process of the platform: one port
// for HTTP/1.1 and HTTP/2 in clear text or TLS (Connect, gRPC, gRPC-Web), optionally a second one
// on grpc-go's server for gRPC alone, the standard endpoints (/health, /ready, /metrics, gRPC
// health, reflection), metrics, logs with the contract's ids, and graceful shutdown. Callers in the
// same process need no port ([Server.InProcess]).
//
// A process makes a [Server], registers its handlers on [Server.RPC] and calls
// [Server.Serve], which owns every goroutine it starts and returns when its
// context ends and the calls in flight have been answered.
package rpc
