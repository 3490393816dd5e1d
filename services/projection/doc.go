// Package projection implements the query side: it follows the tenants' journals, projects events into the model's
// views, and answers queries on them.
//
// Guarantees: a tenant's events are applied in order, and each takes effect exactly once: rows and checkpoint change in
// one transaction, and an event at or below the checkpoint is ignored (dedupe). A response contains rows of one tenant
// and one state. A query with min_position sees the effects of that position's command, or fails by its deadline
// because the view has not reached it.
//
// The views are a cache of the journal. Each model revision has a separate generation of a tenant's views, which is
// built beside the current one and shown once it is complete (generations.go). The model and the set of served tenants
// may change while the node runs. Watchers are notified which rows to read again (hub.go, watch.go); the keys that a
// slow watcher has not read yet are bounded, and it is ended beyond the bound (backpressure).
package projection
