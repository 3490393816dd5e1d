// Package fleet announces nodes and follows what is known of nodes, placements and tenants.
//
// A node announces itself each second ([Announce]); one that is silent for [MissedHeartbeats] is
// asked for by a probe and removed ([FollowNodes]). The tenants that a node serves are stored apart
// from its announcement, since they change rarely. An [Assignment] follows which tenants a node
// serves, from its configuration and the operators' placements.
package fleet
