// Package fleet stores and follows the nodes, placements and tenants of the platform in NATS: what every process
// shares. Package gateway/fleet applies it to the routing table of a gateway; both have the name of what they follow.
//
// A node announces itself each second ([Announce]); a node that misses [MissedHeartbeats]
// heartbeats is silent, and is removed if a probe finds that it does not answer ([FollowNodes]).
// The tenants that a node serves are stored apart from its announcement, since they change rarely.
// An [Assignment] follows which tenants a node serves, from its configuration and the operators'
// placements.
package fleet
