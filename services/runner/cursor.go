package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// cursor is the progress of a tenant's triggers, as stored under the tenant's name in the bucket "cursors". Only the
// owner changes it, by compare-and-set: its KV revision is the fencing token of the owner's work.
type cursor struct {
	// Read is the last sequence that was read: every trigger up to it has ended, is scheduled, is a dead letter, or
	// is in Open.
	Read uint64 `json:"read"`
	// Epoch is the epoch of the journal that Read belongs to.
	Epoch int64 `json:"epoch"`
	// Open are the triggers that were started and have not ended, at most [window].
	Open []attempt `json:"open,omitempty"`
	// Due is due work that has failed and will be retried.
	Due []attempt `json:"due,omitempty"`
	// Owner is the lease of the runner that owns the tenant; "": no owner.
	Owner string `json:"owner,omitempty"`
	// Durable is set after an upgrade: the durable consumer of earlier versions has unacknowledged triggers up to
	// this sequence, which it delivers; 0: none.
	Durable uint64 `json:"durable,omitempty"`
	// Workflows are the identities of the workflows whose events Read covers; nil: all of the model's, in a cursor of
	// an earlier version.
	Workflows []string `json:"workflows"`
	// Backfills are workflows whose events up to Read are not all started.
	Backfills []backfill `json:"backfills,omitempty"`
}

// attempt is a message and the number of failed attempts at it.
type attempt struct {
	Sequence uint64 `json:"seq"`
	Failed   int    `json:"failed,omitempty"`
}

// errOwned reports that another live runner owns a tenant.
var errOwned = errors.New("another runner owns the tenant")

// errFenced reports that a runner's claim on a tenant is no longer valid.
var errFenced = errors.New("the claim on the tenant is lost")

// storedCursor is a cursor with its KV revision in the bucket; revision 0: there is none.
type storedCursor struct {
	cursor

	revision uint64
}

// loadCursor returns the tenant's cursor.
func (s *Service) loadCursor(ctx context.Context, tenant contextkit.TenantID) (storedCursor, error) {
	kept, err := s.cursors.Get(ctx, tenant.String())
	if errors.Is(err, kv.ErrNotFound) {
		return storedCursor{}, nil
	}
	return storedCursor{kept.Value, kept.Revision}, err
}

// saveCursor stores the tenant's cursor if its KV revision is current. Error: [errFenced] if it is not; after any
// other error it is unknown whether the cursor was stored.
func (s *Service) saveCursor(ctx context.Context, tenant contextkit.TenantID, c storedCursor) (uint64, error) {
	for {
		revision, err := s.cursors.Put(contextkit.TenantContext(ctx, tenant), tenant.String(), c.cursor, c.revision)
		if !errors.Is(err, kv.ErrChanged) {
			return revision, err
		}
		// An earlier attempt may have been stored without an acknowledgement. No other runner writes a cursor that
		// this lease owns.
		now, err := s.loadCursor(ctx, tenant)
		switch {
		case err != nil:
			return 0, err
		case now.revision == c.revision || now.revision == 0 || now.Owner == "" || now.Owner != s.lease.ID():
			return 0, fmt.Errorf("%w: tenant %s", errFenced, tenant)
		}
		c.revision = now.revision
	}
}

// attemptsOf returns the pieces' sequences with their failures, in order; failedAlone: only pieces that have failed.
func attemptsOf(pieces map[uint64]*piece, failedAlone bool) []attempt {
	var out []attempt
	for sequence, p := range pieces {
		if p.failed > 0 || !failedAlone {
			out = append(out, attempt{sequence, p.failed})
		}
	}
	slices.SortFunc(out, func(a, b attempt) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return out
}

// startingCursor returns the initial cursor of a tenant: after the position of the durable consumer of earlier
// versions, or at the journal's start. Messages that the consumer has delivered and that are not acknowledged are
// still read from it.
func (s *Service) startingCursor(ctx context.Context, tenant contextkit.TenantID) (cursor, error) {
	c := cursor{Epoch: s.journal.Epoch()}
	if !s.hasDurable(tenant) {
		return c, nil
	}
	consumer, err := s.js.Consumer(ctx, streams.Events, durableName(tenant))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return c, nil
	case err != nil:
		return c, fmt.Errorf("consumer %s: %w", durableName(tenant), err)
	}
	info := consumer.CachedInfo()
	c.Read = info.Delivered.Stream
	if info.NumAckPending > 0 {
		c.Durable = info.Delivered.Stream
	}
	return c, nil
}

// cutTo returns the cursor without the sequences after end, for a journal whose events after end were lost and the
// loss accepted, since other events have these sequences now.
func (c cursor) cutTo(end uint64) cursor {
	c.Read, c.Durable = min(c.Read, end), min(c.Durable, end)
	c.Open = slices.DeleteFunc(slices.Clone(c.Open), func(a attempt) bool { return a.Sequence > end })
	c.Backfills = slices.Clone(c.Backfills)
	for n := range c.Backfills {
		c.Backfills[n].Until = min(c.Backfills[n].Until, end)
	}
	return c
}
