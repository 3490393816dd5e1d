package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/workqueue"
)

// pollDue offers due work to its tenants as it arrives, until ctx ends.
func (t *term) pollDue(ctx context.Context) {
	ticker := time.NewTicker(duePoll)
	defer ticker.Stop()
	var whole time.Time
	next, failed := uint64(1), false
	for {
		if time.Since(whole) >= dueRescan {
			whole, next = time.Now(), 1
		}
		err := workqueue.Read(ctx, t.service.js, contextkit.TenantID{}, next, 0, func(work workqueue.Due) error {
			next = work.Sequence + 1
			if o := t.owner(work.Tenant); o != nil {
				o.offer(work)
			}
			return nil
		}, func(sequence uint64, subject string, err error) {
			next = sequence + 1
			t.removeMalformed(ctx, sequence, subject, err)
		})
		if err != nil && ctx.Err() == nil && !failed {
			t.service.log.Warn().Err(err).Msg("reading due work failed, retrying")
		}
		failed = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// removeMalformed removes a message of WORK that no attempt can read.
func (t *term) removeMalformed(ctx context.Context, sequence uint64, subject string, err error) {
	t.service.log.Error().Err(err).Str("subject", subject).Msg("due work cannot be read, removing it")
	if err := workqueue.Remove(ctx, t.service.js, sequence); err != nil {
		t.service.log.Warn().Err(err).Msg("removing malformed due work failed, retrying")
	}
}

// scanDue offers a tenant its due work from the start, until the window is full.
func (t *term) scanDue(ctx context.Context, o *owned) error {
	o.mu.Lock()
	o.dueBehind = false
	o.mu.Unlock()
	errFull := errors.New("full")
	err := workqueue.Read(ctx, t.service.js, o.tenant, 1, 0, func(work workqueue.Due) error {
		if !o.offer(work) {
			return errFull
		}
		return nil
	}, func(uint64, string, error) {}) // pollDue removes them
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// rescan calls scanDue again for a tenant whose window has free slots.
func (t *term) rescan(o *owned) {
	if err := t.scanDue(o.accepting, o); err != nil && o.accepting.Err() == nil {
		o.mu.Lock()
		o.dueBehind = true // when the next piece ends
		o.mu.Unlock()
	}
}

// errNoTrigger reports that the journal has no message at a trigger's sequence.
var errNoTrigger = errors.New("the journal has no event of the tenant there")

// event reads a tenant's event.
func (t *term) event(ctx context.Context, tenant contextkit.TenantID, sequence uint64) (journal.Event, error) {
	event, found, err := t.service.journal.Event(ctx, tenant, sequence)
	if err == nil && !found {
		err = fmt.Errorf("%w: sequence %d", errNoTrigger, sequence)
	}
	return event, err
}
