package backup

import (
	"slices"

	"github.com/headgate/headgate/internal/streams"
)

// phase is the order in which a stream is read; see the package's documentation.
type phase int

const (
	phasePositions phase = iota
	phaseWork
	phaseRecords
	phaseJournal
	phaseSettings
)

// bucketStream is the stream of a key-value bucket (NATS ADR-8).
func bucketStream(bucket string) string { return "KV_" + bucket }

// phaseOf returns the phase of a stream. Streams that it does not know are records.
func phaseOf(stream string) phase {
	switch stream {
	case streams.Events:
		return phaseJournal
	case bucketStream(streams.BucketRunner), bucketStream(streams.BucketCursors):
		return phasePositions
	case streams.Work, streams.DeadLetters:
		return phaseWork
	case bucketStream(
		streams.BucketModels,
	), bucketStream(
		streams.BucketRevisions,
	), bucketStream(streams.BucketTenants), bucketStream(streams.BucketPlacement),
		bucketStream(streams.BucketMoves), bucketStream(streams.BucketSecrets), bucketStream(streams.BucketRevocations):
		return phaseSettings
	}
	return phaseRecords
}

// omitted are the streams that a backup does not have, with the reason.
var omitted = map[string]string{
	bucketStream(streams.BucketNodes):  "announcements of running nodes",
	bucketStream(streams.BucketServed): "the tenants that running nodes serve",
	bucketStream(streams.BucketDrains): "which running nodes are drained",
	bucketStream(streams.BucketLeases): "which running process owns which tenant",
	bucketStream(streams.BucketAPIKeys): "API keys that control has issued: one that was revoked after the backup " +
		"would be accepted again",
	bucketStream(streams.BucketUsage): "counts of what tenants store, which are made again from the events",
	bucketStream(
		streams.BucketSnapshots,
	): "states of aggregates, which are made again from the events and belong to one journal",
}

// lateRecords are the streams that are read last of the records, in this order: workflow
// records, since the fewer change until the end of the journal is read, the better.
var lateRecords = map[string]int{
	bucketStream(streams.BucketWorkflows): 1,
	bucketStream(streams.BucketInstances): 2,
}

// ordered returns the streams of a backup in the order in which they are read, and the same
// order is used for any order of the input.
func ordered(streamList []string) []string {
	var out []string
	for _, name := range streamList {
		if _, left := omitted[name]; !left {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if d := int(phaseOf(a)) - int(phaseOf(b)); d != 0 {
			return d
		}
		if d := lateRecords[a] - lateRecords[b]; d != 0 {
			return d
		}
		// Cursors are read after the bucket runner, which records whether runners use them: if
		// so, they are complete.
		late := bucketStream(streams.BucketCursors)
		switch {
		case a == b:
			return 0
		case a == late:
			return 1
		case b == late:
			return -1
		case a < b:
			return -1
		}
		return 1
	})
	return out
}
