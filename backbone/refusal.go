package backbone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Refusal is why JetStream does not store what is published.
type Refusal string

// Refusals, as the label reason of headgate_appends_refused_total.
const (
	RefusalNoRoom      Refusal = "no_room"     // the disk, or the server's or account's limit, is full
	RefusalNoAck       Refusal = "no_ack"      // the stream answers and stores nothing: its disk has refused a write
	RefusalNoLeader    Refusal = "no_leader"   // the servers choose another leader
	RefusalUnavailable Refusal = "unavailable" // no server answers for JetStream
	RefusalGone        Refusal = "gone"        // the directory of the store has disappeared
	RefusalDamaged     Refusal = "damaged"     // the journal is damaged
	RefusalOther       Refusal = "other"
)

// refusalTexts say what is wrong, which clients may read, and what an operator does about it. The
// verb's subject is the journal, or a stream.
var refusalTexts = map[Refusal]struct{ what, remedy string }{
	RefusalNoRoom:      {"the disk of %s is full", "make room on the NATS server's disk"},
	RefusalNoAck:       {"%s stores nothing, which is so when its disk has been full", "make room on the NATS server's disk, and restart the server"},
	RefusalNoLeader:    {"%s has no leader", "look at the NATS servers: most of them are away, or they choose one"},
	RefusalUnavailable: {"JetStream does not answer for %s", "look at the NATS servers: one whose disk was full switches JetStream off until it is restarted"},
	RefusalGone:        {"the directory of %s has disappeared", "put it back; the files that the process has open are lost when it ends"},
	RefusalDamaged:     {"%s is damaged", "restore it, or accept the loss"},
	RefusalOther:       {"%s refuses messages", "look at the log"},
}

// StorageError says that a stream does not store what is published. Its text has nothing that a
// client must not read.
type StorageError struct {
	Stream  string
	Refusal Refusal
	// Since is when the first message was refused.
	Since time.Time
	// embedded says that the stream is on a server in this process, which is started anew by
	// itself.
	embedded bool
	cause    error
}

// What says what is wrong.
func (e *StorageError) What() string {
	name := "the journal"
	if e.Stream != StreamEvents {
		name = "the stream " + e.Stream
	}
	return fmt.Sprintf(refusalTexts[e.Refusal].what, name)
}

// Error says what is wrong, and what an operator does about it.
func (e *StorageError) Error() string {
	if e.embedded && e.Refusal == RefusalNoRoom {
		return e.What() + ": make room, and it goes on by itself"
	}
	return e.What() + ": " + refusalTexts[e.Refusal].remedy
}

// Unwrap returns what NATS or the disk said.
func (e *StorageError) Unwrap() error { return e.cause }

// JetStream's error codes that say that nothing can be stored now.
const (
	errCodeInsufficientResources jetstream.ErrorCode = 10023
	errCodeStoreFailed           jetstream.ErrorCode = 10077
	errCodeNotLeader             jetstream.ErrorCode = 10009
	errCodeStreamOffline         jetstream.ErrorCode = 10118
)

// refusalOf returns why a publish was not stored, "" if its error says nothing of the stream: the
// message was refused for what it is, its caller left, or the connection was lost.
func refusalOf(err error) Refusal {
	var api jetstream.JetStreamError
	switch {
	case errors.As(err, &api) && api.APIError() != nil:
		switch known := api.APIError(); {
		case known.ErrorCode == errCodeNoStorage, known.ErrorCode == errCodeInsufficientResources, known.ErrorCode == errCodeAccountExhausted,
			known.ErrorCode == errCodeStoreFailed, strings.Contains(known.Description, "no space left"):
			return RefusalNoRoom
		case known.ErrorCode == errCodeNotLeader, known.ErrorCode == errCodeStreamOffline:
			return RefusalNoLeader
		case known.Code == http.StatusServiceUnavailable:
			return RefusalUnavailable
		case known.Code >= http.StatusInternalServerError:
			return RefusalOther
		}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return RefusalUnavailable
	case errors.Is(err, errNoAck), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return RefusalNoAck
	}
	return ""
}

// streamOf returns the stream of a subject, "" if it is none of the platform's.
func streamOf(subject string) string {
	first, rest, _ := strings.Cut(subject, ".")
	switch first {
	case "events":
		return StreamEvents
	case "work", "later":
		return StreamWork
	case "audit":
		return StreamAudit
	case "deadletters":
		return StreamDeadLetters
	case "timeline":
		return StreamTimeline
	case "$KV":
		bucket, _, _ := strings.Cut(rest, ".")
		return BucketStream(bucket)
	}
	return ""
}
