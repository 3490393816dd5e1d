package control

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/model"
)

func TestChecks_BoundPerCaller(t *testing.T) {
	c := newChecks()
	if err := c.running.Acquire(t.Context(), maxChecks); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, maxCallerChecks)
	for range maxCallerChecks {
		if !c.enter("ada") {
			t.Fatal("the caller's first checks are rejected")
		}
		go func() {
			defer c.leave("ada")
			ended <- c.running.Acquire(ctx, 1)
		}()
	}
	if _, err := c.parse(t.Context(), "ada", "model: x"); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("check over the caller's limit: %v", err)
	}
	cancel()
	for range maxCallerChecks {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	c.running.Release(maxChecks)
	var mistakes *model.Error
	if _, err := c.parse(t.Context(), "bob", "model: x"); !errors.As(err, &mistakes) {
		t.Errorf("check of another caller: %v", err)
	}
	if len(c.callers) != 0 {
		t.Errorf("%d callers are recorded after their checks", len(c.callers))
	}
}
