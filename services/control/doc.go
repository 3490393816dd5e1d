// Package control is the platform seen from above: what nodes there are, where
// tenants are served, what they may do, which model is in use, who did what, and
// what a call has caused.
//
// What it promises: whatever it decides stands in NATS before it answers, changed
// by compare and set, so that any number of control nodes may run and any may die
// at any moment; a move of a tenant goes on where it was. What it does not know it
// says so.
//
// How: decisions are values in buckets that the nodes concerned follow by
// themselves; nothing is pushed. What nodes say of themselves comes from their
// announcements, whether they answer from asking them.
package control
