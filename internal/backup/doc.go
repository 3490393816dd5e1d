// Package backup copies the platform's streams and buckets to files and back.
//
// A backup is a directory with one file per stream, the positions of the journal's durable
// consumers, and a manifest with checksums, which is written last: a directory without one is
// not a backup. Take reads a platform that runs; Restore writes a backup to a NATS server on
// which no node runs, with the sequence and time of each message, and compares the result with
// the files.
//
// # Consistency
//
// Streams are read one after another while commands and workflows continue, in an order by which a
// restored platform loses and doubles nothing:
//
//  1. Most of the journal (EVENTS), which only grows, so that the rest takes little time.
//  2. Runners' positions. A trigger whose work was unfinished then is worked on again.
//  3. WORK and DEADLETTERS. What was due then is due again.
//  4. Records: workflow instances, the idempotency log and every other bucket. A record may be
//     newer than a position: work is repeated under the same idempotency keys.
//  5. The end of the journal. Every record refers to events that the backup has.
//  6. Models, tenants, placements and operators' decisions, which refer to no event, but which
//     events refer to; and the workflow records that changed since step 4, of which
//     only refusals are used: a command that was refused leaves nothing in the journal, and a
//     workflow that has begun to undo its steps must not go forward again.
//
// Restore gives the journal a new epoch (its creation time), so that views and clients'
// positions of the other journal are not mistaken for this one's.
package backup
