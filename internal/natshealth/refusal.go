package natshealth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Refusal is the reason why JetStream does not store a published message.
type Refusal string

// Refusals, as the label reason of headgate_appends_refused_total.
const (
	RefusalNoRoom      Refusal = "no_room"     // the disk, or the server's or account's limit, is full
	RefusalNoAck       Refusal = "no_ack"      // the stream answers and stores nothing: its disk has refused a write
	RefusalNoLeader    Refusal = "no_leader"   // the servers choose another leader
	RefusalUnavailable Refusal = "unavailable" // no server answers for JetStream
	RefusalGone        Refusal = "gone"        // the directory of the store has disappeared
	RefusalDamaged     Refusal = "damaged"     // the journal is damaged
	RefusalPermission  Refusal = "permission"  // NATS refuses the process's user the subject
	RefusalOther       Refusal = "other"
)

// refusalTexts describe each fault, for clients too, and its remedy, for operators. The verb's
// subject is the journal or a stream.
var refusalTexts = map[Refusal]struct{ what, remedy string }{
	RefusalNoRoom: {"the disk of %s is full", "make room on the NATS server's disk"},
	RefusalNoAck: {
		"%s stores nothing, as after its disk has been full",
		"make room on the NATS server's disk, and restart the server",
	},
	RefusalNoLeader: {
		"%s has no leader",
		"check the NATS servers: most of them are unreachable, or they are electing a leader",
	},
	RefusalUnavailable: {
		"JetStream does not answer for %s",
		"check the NATS servers: a server whose disk was full disables JetStream until it is restarted",
	},
	RefusalGone: {
		"the directory of %s has disappeared",
		"restore it; the files that the process has open are lost when it ends",
	},
	RefusalPermission: {
		"the NATS user of the process may not publish to %s",
		"make the servers' configuration again with 'headgate nats-config' of this version",
	},
	RefusalDamaged: {"%s is damaged", "restore it, or accept the loss"},
	RefusalOther:   {"%s refuses messages", "check the log"},
}

// StorageError means that a stream does not store published messages. Its text is safe for
// clients.
type StorageError struct {
	Stream  string
	Refusal Refusal
	// Since is when the first message was refused.
	Since time.Time
	// embedded means that the stream is on a server in this process, which is restarted
	// automatically.
	Embedded bool
	Cause    error
}

// What describes the fault.
func (e *StorageError) What() string {
	name := "the journal"
	if e.Stream != streams.Events {
		name = "the stream " + e.Stream
	}
	return fmt.Sprintf(refusalTexts[e.Refusal].what, name)
}

// Error describes the fault and its remedy.
func (e *StorageError) Error() string {
	if e.Embedded && e.Refusal == RefusalNoRoom {
		return e.What() + ": free disk space; the server is then restarted automatically"
	}
	var api jetstream.JetStreamError
	if e.Refusal == RefusalOther && errors.As(e.Cause, &api) && api.APIError() != nil {
		return fmt.Sprintf("%s: JetStream reports the error %d", e.What(), api.APIError().ErrorCode)
	}
	return e.What() + ": " + refusalTexts[e.Refusal].remedy
}

// Unwrap returns the error of NATS or of the disk.
func (e *StorageError) Unwrap() error { return e.Cause }

// JetStream's error codes for a stream that cannot store now.
const (
	errCodeInsufficientResources jetstream.ErrorCode = 10023
	errCodeStoreFailed           jetstream.ErrorCode = 10077
	errCodeNotLeader             jetstream.ErrorCode = 10009
	errCodeStreamOffline         jetstream.ErrorCode = 10118
)

// refusalOf returns why a publish was not stored, "" if its error is not about the stream: the
// message itself was refused, its caller left, or the connection was lost.
func refusalOf(err error) Refusal {
	var api jetstream.JetStreamError
	switch {
	case errors.As(err, &api) && api.APIError() != nil:
		switch known := api.APIError(); {
		case known.ErrorCode == natsclient.ErrCodeNoStorage,
			known.ErrorCode == errCodeInsufficientResources,
			known.ErrorCode == natsclient.ErrCodeAccountExhausted,
			known.ErrorCode == errCodeStoreFailed,
			strings.Contains(known.Description, "no space left"):
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
	case errors.Is(err, natsclient.ErrNoAck), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return RefusalNoAck
	}
	return ""
}

// streamOf returns the stream of a subject, "" if it is none of the platform's.
func streamOf(subject string) string {
	first, rest, _ := strings.Cut(subject, ".")
	switch first {
	case "events":
		return streams.Events
	case "work", "later", "retry":
		return streams.Work
	case "audit":
		return streams.Audit
	case "deadletters":
		return streams.DeadLetters
	case "timeline":
		return streams.Timeline
	case "$KV":
		bucket, _, _ := strings.Cut(rest, ".")
		return streams.BucketStream(bucket)
	}
	return ""
}
