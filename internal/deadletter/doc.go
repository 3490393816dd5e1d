// Package deadletter stores, reads and removes events that work could not be done for.
package deadletter
