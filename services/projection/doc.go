// Package projection is the query side: it follows each tenant's journal,
// projects the events into the model's views, and answers queries on them.
//
// What it promises: a tenant's events are applied strictly in order, each
// exactly once in effect (rows and checkpoint change in one transaction); an
// answer is from one tenant and one state; a query with a min_position sees
// what that position's command did, or says by its deadline that it does not
// yet.
//
// The views are a cache: another model makes its own from the journal, beside the
// old ones, and a node shows a tenant's views only once they are whole. The model and
// the tenants that are served may change while the node runs (lanes.go). Watchers are
// told which rows to read again (hub.go, watch.go).
package projection
