// Package fleet is the gateway's side of internal/fleet, whose records it follows over NATS and applies: nodes and
// placements to the routing table ([Router]), the services that nodes describe by gRPC reflection to the method table
// ([Reflector]), and the standing of tenants ([Tenants]).
//
// While NATS is unreachable, the last known nodes, placements and standings stay in force. Whether a known node is
// ready is decided by the gateway's probes. The package holds no connection for calls: [route] selects nodes, and the
// gateway forwards.
package fleet
