// Package gateway is the edge of the platform: every protocol in, one pipeline,
// gRPC to the node that answers.
//
//	context → authenticate → admit → deadline → receive → tenant → standing → authorize → limits → route → forward
//
// Each stage is a function in a file of its own; [Gateway.stages] is the list.
// Unary calls and streams, Connect, gRPC, gRPC-Web and REST take the same way.
// What the stages must know of a method stands in its proto (see the policy
// package): the gateway knows no service by name.
//
// Messages are bytes here. They are validated where they are consumed, at the
// service.
package gateway
