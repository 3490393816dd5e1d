package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Cursor implements [tail.Handler]: it loads the tenant's cursor, and claims the tenant if its last owner has left
// work unfinished.
func (o *owned) Cursor(ctx context.Context) (uint64, error) {
	o.claiming.Lock()
	defer o.claiming.Unlock()
	o.mu.Lock()
	changed := o.epochChanged()
	o.mu.Unlock()
	if changed {
		o.term.renew(o)
		return 0, errEpoch
	}
	if err := o.load(ctx); err != nil {
		o.term.await(o, errors.Is(err, errOwned))
		return 0, err
	}
	o.term.await(o, false)
	if err := o.cover(ctx, o.term.service.models.Current()); err != nil {
		return 0, err
	}
	o.mu.Lock()
	unfinished := !o.claimed &&
		(len(o.backfills) > 0 || o.stored.revision == 0 && o.term.service.hasDurable(o.tenant) ||
			o.stored.Owner != "" || len(o.stored.Open) > 0 || o.stored.Durable > 0)
	o.mu.Unlock()
	if unfinished {
		if err := o.claim(ctx); err != nil {
			return 0, err
		}
	}
	if err := o.term.scanDue(ctx, o); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.read, nil
}

// errEpoch reports that the epoch of the journal has changed, so that stored sequences have another meaning.
var errEpoch = errors.New("an operator has accepted a loss at the end of the journal: restarting the tenant")

// epochChanged reports whether the cursor is of an earlier epoch. The caller holds o.mu.
func (o *owned) epochChanged() bool { return o.loaded && o.epoch != o.term.service.journal.Epoch() }

// load reads the cursor unless it is loaded. The caller holds o.claiming.
func (o *owned) load(ctx context.Context) error {
	o.mu.Lock()
	loaded := o.loaded
	o.mu.Unlock()
	if loaded {
		return nil
	}
	s := o.term.service
	epoch := s.journal.Epoch()
	stored, err := s.loadCursor(ctx, o.tenant)
	if err != nil {
		return err
	}
	if stored.Epoch != epoch {
		stored.cursor = stored.cutTo(s.journal.AcceptedEnd(stored.Epoch))
	}
	if stored.revision == 0 {
		if stored.cursor, err = s.startingCursor(ctx, o.tenant); err != nil {
			return err
		}
	}
	if stored.Owner != "" && stored.Owner != o.term.id {
		switch alive, err := s.lease.Alive(ctx, stored.Owner); {
		case err != nil:
			return err
		case alive:
			return fmt.Errorf("%w: tenant %s", errOwned, o.tenant)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stored, o.loaded, o.claimed = stored, true, false // claiming takes over the open triggers
	o.read, o.epoch = stored.Read, epoch
	o.covered, o.backfills, o.model = stored.Workflows, slices.Clone(stored.Backfills), ""
	if stored.revision == 0 || stored.Workflows == nil {
		o.covered = identities(s.models.Current())
	}
	return nil
}

// claim makes this runner the owner. The caller holds o.claiming. Errors: those of [owned.load], and [errFenced] if
// another runner claimed the tenant first, in which case the cursor is read again.
func (o *owned) claim(ctx context.Context) error {
	if err := o.load(ctx); err != nil {
		return err
	}
	s := o.term.service
	if !s.lease.Valid() || s.lease.ID() != o.term.id {
		return errNoLease
	}
	o.mu.Lock()
	claimed, next := o.claimed, o.stored
	next.Read, next.Epoch, next.Owner = o.read, o.epoch, o.term.id
	next.Workflows, next.Backfills = o.covered, slices.Clone(o.backfills)
	o.mu.Unlock()
	if claimed {
		return nil
	}
	if next.revision == 0 {
		if err := s.blockEarlierRunners(ctx, o.tenant); err != nil {
			return err
		}
	}
	revision, err := s.saveCursor(ctx, o.tenant, next)
	if err != nil {
		o.mu.Lock()
		o.loaded = false
		o.mu.Unlock()
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next.revision = revision
	o.stored, o.claimed, o.idleSince = next, true, time.Now()
	for _, left := range next.Open {
		o.add(&piece{sequence: left.Sequence, failed: left.Failed})
	}
	o.term.claim(o)
	if next.Durable > 0 && !o.draining {
		o.draining = true
		o.term.spawn(func() { o.drainDurable(o.accepting) })
	}
	o.fill()
	o.pump()
	return nil
}

// flush stores the cursor if it has changed, and releases the claim if the tenant was idle for [claimIdle], or if
// leaving.
func (o *owned) flush(ctx context.Context, leaving bool) error {
	o.claiming.Lock()
	defer o.claiming.Unlock()
	o.mu.Lock()
	idle := len(o.open) == 0 && len(o.due) == 0 && o.running == 0 && o.stored.Durable == 0 && len(o.backfills) == 0
	release := leaving || idle && time.Since(o.idleSince) >= claimIdle
	if !o.claimed || !o.dirty && !release {
		o.mu.Unlock()
		return nil
	}
	next := o.stored
	next.Read, next.Epoch, next.Open, next.Due = o.read, o.epoch, attemptsOf(o.open, false), attemptsOf(o.due, true)
	next.Workflows, next.Backfills = o.covered, slices.Clone(o.backfills)
	if release {
		next.Owner = ""
	}
	o.dirty = false
	o.mu.Unlock()
	revision, err := o.term.service.saveCursor(ctx, o.tenant, next)
	if errors.Is(err, errFenced) {
		o.term.lose(o)
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.dirty = true
		return err
	}
	next.revision = revision
	o.stored = next
	if release {
		o.claimed = false
		o.term.unclaim(o)
	}
	return nil
}

// noteFar bounds the events of other types that are skipped again after a restart: the cursor of an idle tenant is
// written when the last of its events is further ahead, in sequences.
const noteFar = 4096

// note stores the progress of an idle tenant if it is far ahead of the stored cursor.
func (o *owned) note(ctx context.Context) error {
	o.claiming.Lock()
	defer o.claiming.Unlock()
	o.mu.Lock()
	sub, next, ok := o.sub, o.stored, o.loaded && !o.epochChanged() && !o.claimed && len(o.open) == 0 &&
		len(o.backfills) == 0 && o.accepting.Err() == nil
	next.Epoch, next.Workflows = o.epoch, o.covered
	o.mu.Unlock()
	if !ok || sub == nil {
		return nil
	}
	delivered := sub.Delivered()
	if newest, known := sub.Newest(); !known || delivered < newest || delivered < next.Read+noteFar ||
		!o.term.service.lease.Valid() {
		return nil
	}
	if next.revision == 0 {
		if err := o.term.service.blockEarlierRunners(ctx, o.tenant); err != nil {
			return err
		}
	}
	next.Read, next.Owner = delivered, ""
	revision, err := o.term.service.saveCursor(ctx, o.tenant, next)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.loaded = false // the next claim reads it again
		return err
	}
	next.revision = revision
	o.stored, o.read = next, max(o.read, delivered)
	return nil
}
