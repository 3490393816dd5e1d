package runner_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
)

// Each command of a step, and each that undoes one, may take 5 s: an aggregate node that does not answer holds no
// workflow longer.
func TestSteps_EachCommandHasATimeout(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var mu sync.Mutex
	left := map[string]time.Duration{}
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		mu.Lock()
		defer mu.Unlock()
		left[req.GetCommand()] = 0
		if deadline, ok := ctx.Deadline(); ok {
			left[req.GetCommand()] = time.Until(deadline)
		}
		if strings.HasSuffix(req.GetIdempotencyKey(), ":credit") {
			return connect.NewError(connect.CodeFailedPrecondition, "rejected credit, undone debit")
		}
		return nil
	})
	f.transfer(t, "acme", "t", "b", 100)
	f.ended(t, "acme", "t")
	mu.Lock()
	defer mu.Unlock()
	if len(left) < 3 {
		t.Errorf("commands %v, want the debit, the credit and the debit's undo", left)
	}
	for command, bound := range left {
		if bound <= 0 || bound > 5*time.Second {
			t.Errorf("timeout of %s is %v, want at most 5 s", command, bound)
		}
	}
}
