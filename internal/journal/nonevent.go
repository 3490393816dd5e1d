package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Errors of [Journal.DeclareNonEvent] and [Journal.RevokeNonEvent].
var (
	// ErrNoMessage: the journal has no message of the tenant at the sequence.
	ErrNoMessage = errors.New("the journal has no message of the tenant there")
	// ErrReadable: the message is an event.
	ErrReadable = errors.New("the message is an event")
	// ErrNotDeclared: the message was not declared no event.
	ErrNotDeclared = errors.New("the message was not declared no event")
)

// NonEvent is an operator's decision that a message of the journal is no event: its aggregate
// continues without it. Views and workflows pass over such messages without a decision too.
type NonEvent struct {
	// Stored is when the message was stored, in nanoseconds since 1970: at another time there
	// was another message at its sequence.
	Stored int64 `json:"stored"`
	// Fault is what makes the message unreadable.
	Fault Fault `json:"fault"`
	// By is the operator's subject, Reason their reason, and Time when they decided.
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`

	// Tenant and Sequence are the message's: the key has them.
	Tenant   contextkit.TenantID `json:"-"`
	Sequence uint64              `json:"-"`
}

// noTenant stands in keys for the tenant of messages whose subject names none.
const noTenant = "_"

func nonEventKey(tenant contextkit.TenantID, sequence uint64) string {
	name := noTenant
	if !tenant.IsZero() {
		name = tenant.String()
	}
	return name + "." + strconv.FormatUint(sequence, 10)
}

// nonEventsIn returns the bucket of the decisions.
func nonEventsIn(js jetstream.JetStream) *kv.Bucket[NonEvent] {
	return kv.Unwatched[NonEvent](js, streams.BucketNonEvents)
}

// nonEvent returns the decision on the message of an error, and false if there is none.
func nonEvent(ctx context.Context, js jetstream.JetStream, e *UnreadableError) (kv.Entry[NonEvent], bool, error) {
	kept, err := nonEventsIn(js).Get(ctx, nonEventKey(e.Tenant, e.Sequence))
	if errors.Is(err, kv.ErrNotFound) {
		return kept, false, nil
	}
	kept.Value.Tenant, kept.Value.Sequence = e.Tenant, e.Sequence
	return kept, err == nil && kept.Value.Stored == e.Stored.UnixNano(), err
}

// Declared reports whether an operator has declared the message no event.
func (j *Journal) Declared(ctx context.Context, e *UnreadableError) (bool, error) {
	_, declared, err := nonEvent(ctx, j.js, e)
	return declared, err
}

// unreadable returns why the tenant's message at a sequence is no event. A zero tenant is that of
// messages whose subject names none. Errors: [ErrNoMessage], [ErrReadable].
func (j *Journal) unreadable(
	ctx context.Context,
	tenant contextkit.TenantID,
	sequence uint64,
) (*UnreadableError, error) {
	msg, err := natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{From: sequence})
	if err != nil {
		return nil, err
	}
	if msg == nil || msg.Sequence != sequence {
		return nil, ErrNoMessage
	}
	event, err := ReadEvent(RawMessage(msg))
	fault, is := errors.AsType[*UnreadableError](err)
	switch {
	case is && fault.Tenant == tenant:
		return fault, nil
	case err == nil && event.Context.TenantID == tenant:
		return nil, ErrReadable
	}
	return nil, ErrNoMessage
}

// DeclareNonEvent declares the tenant's message at a sequence no event, in the name of an
// operator. A declaration that is there already is returned. Errors: [ErrNoMessage],
// [ErrReadable].
func (j *Journal) DeclareNonEvent(
	ctx context.Context,
	tenant contextkit.TenantID,
	sequence uint64,
	by, reason string,
) (NonEvent, error) {
	e, err := j.unreadable(ctx, tenant, sequence)
	if err != nil {
		return NonEvent{}, err
	}
	kept, declared, err := nonEvent(ctx, j.js, e)
	if err != nil || declared {
		return kept.Value, err
	}
	made := NonEvent{
		Stored:   e.Stored.UnixNano(),
		Fault:    e.Fault,
		By:       by,
		Reason:   reason,
		Time:     time.Now().UTC(),
		Tenant:   tenant,
		Sequence: sequence,
	}
	if _, err = nonEventsIn(j.js).Put(ctx, nonEventKey(tenant, sequence), made, kept.Revision); err == nil {
		j.health.unreadable.drop(e)
	}
	return made, err
}

// RevokeNonEvent revokes a declaration, and returns it. Error: [ErrNotDeclared].
func (j *Journal) RevokeNonEvent(ctx context.Context, tenant contextkit.TenantID, sequence uint64) (NonEvent, error) {
	kept, err := nonEventsIn(j.js).Get(ctx, nonEventKey(tenant, sequence))
	if errors.Is(err, kv.ErrNotFound) {
		return NonEvent{}, ErrNotDeclared
	}
	if err != nil {
		return NonEvent{}, err
	}
	kept.Value.Tenant, kept.Value.Sequence = tenant, sequence
	return kept.Value, nonEventsIn(j.js).Delete(ctx, nonEventKey(tenant, sequence), kept.Revision)
}

// NonEvents returns the declarations, the newest first, most of them at most.
func (j *Journal) NonEvents(ctx context.Context, most int) ([]NonEvent, error) {
	return listNonEvents(ctx, j.js, most)
}

func listNonEvents(ctx context.Context, js jetstream.JetStream, most int) (all []NonEvent, err error) {
	_, err = nonEventsIn(js).Newest(ctx, ">", 0, 2*most, func(key string, kept kv.Entry[NonEvent]) bool {
		name, text, _ := strings.Cut(key, ".")
		sequence, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return true // another version's
		}
		kept.Value.Sequence = sequence
		kept.Value.Tenant, _ = contextkit.ParseTenantID(name) // zero for noTenant
		all = append(all, kept.Value)
		return len(all) < most
	})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return all, nil
}

// declaredIn returns a function that reports whether a message was declared no event when declaredIn
// was called.
func declaredIn(ctx context.Context, js jetstream.JetStream) (func(*UnreadableError) bool, error) {
	decisions, err := listNonEvents(ctx, js, maxUnreadable)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil // of an earlier version
	}
	stored := make(map[uint64]int64, len(decisions))
	for _, decision := range decisions {
		stored[decision.Sequence] = decision.Stored
	}
	return func(e *UnreadableError) bool { return stored[e.Sequence] == e.Stored.UnixNano() }, err
}
