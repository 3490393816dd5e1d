package control

import (
	"context"
	"sync"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/semaphore"

	"github.com/headgate/headgate/model"
)

const (
	// maxChecks bounds the models that are checked concurrently.
	maxChecks = 2
	// maxCallerChecks bounds the running and waiting checks of one caller.
	maxCallerChecks = 2
)

// checks bounds the concurrent checks of models, per process and per caller, since a check may take seconds of CPU
// and hundreds of megabytes.
type checks struct {
	running *semaphore.Weighted

	mu      sync.Mutex
	callers map[string]int
}

func newChecks() *checks {
	return &checks{running: semaphore.NewWeighted(maxChecks), callers: map[string]int{}}
}

// parse runs [model.ParseContext] when a slot is free. It returns RESOURCE_EXHAUSTED if the caller has reached its
// limit.
func (c *checks) parse(ctx context.Context, caller, text string) (*model.Model, error) {
	if !c.enter(caller) {
		return nil, connect.Errorf(connect.CodeResourceExhausted,
			"this caller already has %d models being checked: wait for their responses", maxCallerChecks)
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

// refusedCheck returns the error of a check that was not completed.
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
