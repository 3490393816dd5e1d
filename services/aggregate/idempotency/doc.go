// Package idempotency deduplicates commands (dedupe by idempotency key): it stores which command of an
// aggregate each key belongs to, so that a repeated command gets its first answer and takes effect once.
//
// A [Log] belongs to one aggregate. It holds the answers of the aggregate's newest commands. Older
// answers move, in the journal's order, into answer blocks of 64 answers, and blocks into a block
// index of 64 blocks. Full blocks and block indexes are written to a [Store] in the background; the
// log, and its snapshots, hold their content until the write is acknowledged. Nodes that record the
// same events write the same records under the same names, so concurrent writers do no harm.
//
// A log answers for the newest million of an aggregate's commands, for as long as the store retains
// records. It leaves to its callers: the rejection of a key that is reused for another command, the
// order of events, locking, and the bound of all logs' memory (see [Log.Size]).
package idempotency
