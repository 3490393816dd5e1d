// Package natsclient connects to NATS and adds to the client library what the platform needs: reads by a
// stream's leader, reads in batches that no silent server can stall, asynchronous publishes with a
// bound, and the classification of errors.
//
// A read by the leader ([AskLeader]) sees every acknowledged message. A read in batches
// ([ReadBatches], [ReadPart], [ReadNewest]) is answered by any replica, which may be behind;
// [ReadAll] combines both.
//
// Sources: NATS ADR-31 (direct get), ADR-50 (atomic batch publish).
package natsclient
