package control

import (
	"context"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/model"
	"golang.org/x/sync/semaphore"
)

const (
	// maxChecks is how many models are checked concurrently.
	maxChecks = 2
	// maxCallerChecks is how many of one caller's models are checked or wait for it.
	maxCallerChecks = 2
)

// checks bounds the checks of models, each of which may take seconds of CPU and hundreds of
// megabytes: of the process, and of each caller.
type checks struct {
	running *semaphore.Weighted

	mu      sync.Mutex
	callers map[string]int
}

func newChecks() *checks {
	return &checks{running: semaphore.NewWeighted(maxChecks), callers: map[string]int{}}
}

// parse is [model.ParseContext] when the caller's turn has come. A caller's further checks
// are RESOURCE_EXHAUSTED.
func (c *checks) parse(ctx context.Context, caller, text string) (*model.Model, error) {
	if !c.enter(caller) {
		return nil, connect.Errorf(connect.CodeResourceExhausted, "%d models of this caller are being checked: wait for their answers", maxCallerChecks)
	}
	defer c.leave(caller)
	if err := c.running.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.running.Release(1)
	return model.ParseContext(ctx, "model", []byte(text))
}

func (c *checks) enter(caller string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.callers[caller] == maxCallerChecks {
		return false
	}
	c.callers[caller]++
	return true
}

func (c *checks) leave(caller string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.callers[caller]--; c.callers[caller] == 0 {
		delete(c.callers, caller)
	}
}

// refusedCheck returns the error of a check that was not made, and nil for mistakes of the
// model.
func refusedCheck(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		return err
	}
	return connect.NewError(connect.CodeInternal, "the model cannot be checked").WithCause(err)
}
