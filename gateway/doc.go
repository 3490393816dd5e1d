// Package gateway is the edge of the platform. It accepts calls over Connect, gRPC, gRPC-Web and
// REST, runs one pipeline for all of them, and forwards each call over gRPC to a node.
//
//	authenticate → right → standing → admission → deadline → headers → receive → tenant → authorize → quota → route → forward
//
// Stage x is in the file stage_x.go; [Gateway.stages] lists those before forward. An interceptor of
// package contextkit extracts the transport contract before the first stage. A call is rejected by
// the first stage that does not admit it. The body of a request is not read, and no shared capacity
// is used, before the caller is authenticated and admission has charged the caller's budget.
//
// The gateway knows no service by name: a method's policy in its proto (package policy) configures
// the stages. Messages are forwarded as bytes; they are checked to be valid protobuf, and validated
// by the service that consumes them.
package gateway
