// Package control implements the control plane: nodes, tenants and their quotas, placements and moves, the model in
// use, audit records, and timelines of calls.
//
// Guarantees: every decision is stored in NATS before it is acknowledged, by compare-and-set, so that any number of
// control nodes may run and any of them may crash at any time; another node continues a move where it was. Unknown
// state is reported as unknown.
//
// Decisions are values in buckets that the affected nodes follow; nothing is pushed to nodes. The state of nodes
// comes from their announcements, and their availability from health checks.
package control
