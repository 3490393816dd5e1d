package journal

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// confirmedFor is how long a confirmation counts.
	confirmedFor = time.Second
	// confirmPause is the wait before a leader that was just elected is asked again.
	confirmPause = 250 * time.Millisecond
)

// DeposedBound is the age of the oldest state that a read of a confirmed leader may return: a server that does not know
// yet that another one leads was still in contact with a majority that long ago.
const DeposedBound = natsclient.ElectionTimeout + confirmedFor

// ErrUnconfirmed means that the server that leads the journal is not in contact with a majority of the replicas:
// another one may lead, and have later events.
var ErrUnconfirmed = errors.New("the leader of the journal is not in contact with a majority of the replicas")

// confirmation is when the journal's leader was last known to be in contact with a majority.
type confirmation struct {
	turn chan struct{} // holds a value while a call asks
	at   atomic.Pointer[time.Time]
}

// fresh reports whether a confirmation still counts.
func (c *confirmation) fresh() bool {
	at := c.at.Load()
	return at != nil && time.Since(*at) < confirmedFor
}

// Confirm returns nil if what the journal's leader has answered before the call is at most [DeposedBound] old. A leader
// that the others do not reach any more answers reads for up to 20 s, while another one is elected. Nothing is asked if
// a call was confirmed within the last second, or if one server has the journal. Errors: [ErrUnconfirmed], those of the
// request, and the context's.
func (j *Journal) Confirm(ctx context.Context) error {
	if !j.Replicated() || j.confirmed.fresh() {
		return nil
	}
	select {
	case j.confirmed.turn <- struct{}{}:
		defer func() { <-j.confirmed.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.confirmed.fresh() {
		return nil // another call has asked since
	}
	return j.While(ctx, func(ctx context.Context) error {
		for again := false; ; again = true {
			asked := time.Now()
			inContact, err := natsclient.LeaderInContact(ctx, j.js, streams.Events)
			switch {
			case err != nil:
				return err
			case inContact:
				j.confirmed.at.Store(&asked)
				return nil
			case again:
				return ErrUnconfirmed
			}
			select {
			case <-time.After(confirmPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}
