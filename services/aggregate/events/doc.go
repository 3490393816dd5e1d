// Package events implements the EventService: it reads a tenant's journal for clients.
//
// A read is a page of messages from the journal's stream, bounded in events, in bytes, in messages that were read and
// in time; at most two reads of a tenant and sixteen of the node run concurrently. A subscription is served from one
// tail that all subscriptions of the node share, which runs while there are subscriptions: a subscription has no
// consumer, and a client that does not read holds a bounded number of messages of its tenant and delays no other.
//
// Messages that are no events are returned in their place with the reason, without their content, which may be
// another tenant's.
package events
