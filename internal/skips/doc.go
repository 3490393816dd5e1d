// Package skips records operators' decisions that a view is made without an event.
package skips
