// Package fleet follows, over NATS, what a gateway has to know of the platform: nodes and placements ([Router]), the
// services that nodes describe by gRPC reflection ([Reflector]), and the standing of tenants ([Tenants]).
//
// While NATS is away, the last known nodes, placements and standings stay in force. Whether a known node is ready is
// decided by the gateway's probes. The package holds no connection for calls: [route] selects nodes, and the gateway
// forwards.
package fleet
