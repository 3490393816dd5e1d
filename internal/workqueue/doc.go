// Package workqueue reads, counts and removes due work and schedules of workflow instances, which are
// messages of the stream [streams.Work].
package workqueue
