// Package contextkit is the transport contract: the metadata of every call and message (tenant,
// correlation, trace), its header names, and its injection into and extraction from HTTP, Connect, gRPC
// and NATS.
//
// A [RequestContext] travels in a context.Context. It enters a process at
// exactly one place (an interceptor, a handler or a consumer of this package)
// and leaves it only through this package's clients and injections, which
// reject a context that has neither a tenant nor the explicit platform scope:
// forgetting the context is an error, not a silent gap. The time that a call has is part
// of its context: [Until] keeps it and [Await] waits for it, at the cost of nothing else.
//
// Header names are defined in this package only. [OwnedHeaders] is the set of headers that clients
// and nodes cannot send through the gateway. Values that may be any text, such
// as the principal, travel encoded by [EncodeText].
//
// Source: W3C Trace Context level 2 (https://www.w3.org/TR/trace-context-2/).
package contextkit
