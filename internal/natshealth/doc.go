// Package natshealth reports whether this process reaches NATS ([Monitor]) and whether the streams store
// what it publishes ([Storage]).
//
// A stream that refuses messages or does not acknowledge them is reported as a [StorageError], whose
// text is safe for clients, until a publish succeeds again.
package natshealth
