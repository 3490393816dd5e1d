package natsclient

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// AttemptTimeout bounds one attempt to create a stream.
const AttemptTimeout = 3 * time.Second

// AttemptPause is the pause between two attempts.
const AttemptPause = 250 * time.Millisecond

// errCodeNoPeers is the error of a stream for whose copies the leader does not yet know enough servers.
const errCodeNoPeers = 10005

// peersTimeout bounds the time in which the servers of a cluster that has just started find each other.
const peersTimeout = 10 * time.Second

// Patiently does what may be done again until it is done, ctx ends, or it fails for
// another reason than that servers have just started: those of a cluster answer nothing
// before they have found each other, forget what they were asked, and lack peers for copies
// until all have joined, which may take peersTimeout.
func Patiently(ctx context.Context, do func(ctx context.Context) error) error {
	began := time.Now()
	for {
		attempt, cancel := context.WithTimeout(ctx, AttemptTimeout)
		err := do(attempt)
		cancel()
		var api *jetstream.APIError
		again := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) ||
			errors.As(err, &api) && (api.Code == http.StatusServiceUnavailable ||
				api.ErrorCode == errCodeNoPeers && time.Since(began) < peersTimeout)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(AttemptPause):
		case <-ctx.Done():
			return err
		}
	}
}
