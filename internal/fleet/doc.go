// Package fleet announces nodes and follows what is known of nodes, placements and tenants.
//
// A node announces itself each second ([Announce]); a node that misses [MissedHeartbeats]
// heartbeats is silent, and is removed if a probe finds that it does not answer ([FollowNodes]).
// The tenants that a node serves are stored apart from its announcement, since they change rarely.
// An [Assignment] follows which tenants a node serves, from its configuration and the operators'
// placements.
package fleet
