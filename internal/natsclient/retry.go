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

// Patiently does what may be done again until it is done, ctx ends, or it fails for
// another reason than that servers have just started: those of a cluster answer nothing
// before they have found each other, and forget what they were asked.
func Patiently(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, AttemptTimeout)
		err := do(attempt)
		cancel()
		var api *jetstream.APIError
		again := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) ||
			errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
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
