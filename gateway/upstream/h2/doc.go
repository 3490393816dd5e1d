// Package h2 is a gRPC client's side of HTTP/2: a [Channel] to one peer, which connects
// with its first call and anew with the first one after a failure, and the [Stream]s on it.
//
// It knows gRPC's framing of messages and nothing else of gRPC: header fields, statuses
// and what a call means are its caller's. Frames are read, and header fields compressed,
// by golang.org/x/net/http2; its own are who writes when (one writer a connection, which
// takes along what others have ready), what is kept for whom (an answer lies once, in
// memory that is used again), and when whoever waits is woken (once an answer, when it is
// complete). Why not grpc-go's client: docs/decisions/0012-own-http2-client.md.
//
// Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC over HTTP2
// (grpc/doc/PROTOCOL-HTTP2.md).
package h2
