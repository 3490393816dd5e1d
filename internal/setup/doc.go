// Package setup prepares NATS for the platform at start: it checks limits, creates and updates streams
// and buckets, and refuses to start on data that is incomplete, newer, or missing its journal.
package setup
