// Package h2 is the HTTP/2 part of a gRPC client: a [Channel] to one peer, which its first call
// connects, and the first call after a failure reconnects, and the [Stream]s on it.
//
// It implements gRPC's message framing and nothing else of gRPC: header fields, statuses and their
// meaning are the caller's. golang.org/x/net/http2 reads frames and compresses header fields. This
// package decides when to write (one writer per connection, which coalesces the pending bytes of all
// streams, with backpressure by HTTP/2's flow control), where messages are stored (once, in pooled
// buffers) and when a waiting caller is notified (once per answer, when it is complete).
// docs/decisions/0012-own-http2-client.md compares it with grpc-go's client.
//
// Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC over HTTP2
// (grpc/doc/PROTOCOL-HTTP2.md).
package h2
