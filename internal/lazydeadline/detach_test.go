package lazydeadline_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/lazydeadline"
)

func TestDetach_KeepsOnlyTheParentsEnd(t *testing.T) {
	type key struct{}
	deadline := time.Now().Add(time.Hour)
	parent, end := context.WithCancelCause(context.WithValue(contextkit.PlatformContext(t.Context()), key{}, "secret"))
	defer end(nil)
	parent, cancel := context.WithDeadline(parent, deadline)
	defer cancel()

	var held lazydeadline.Context
	ctx, release := lazydeadline.Detach(parent, &held)
	defer release()
	if _, carried := contextkit.FromContext(ctx); carried || ctx.Value(key{}) != nil {
		t.Error("it carries what its parent does")
	}
	if until, ok := ctx.Deadline(); !ok || deadline.Sub(until) < contextkit.DeadlineMargin ||
		deadline.Sub(until) > contextkit.DeadlineMargin+time.Minute {
		t.Errorf("its deadline is %v, want its parent's less the margin, %v", until, deadline)
	}
	child, leave := context.WithCancel(ctx)
	defer leave()
	end(errors.New("an inner matter"))
	<-child.Done()
	if err := context.Cause(ctx); !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v, because of %v", ctx.Err(), err)
	}
}

func TestDetach_WithoutADeadlineHasNone(t *testing.T) {
	var held lazydeadline.Context
	ctx, release := lazydeadline.Detach(context.Background(), &held)
	if until, ok := ctx.Deadline(); ok {
		t.Errorf("its deadline is %v, want none", until)
	}
	release()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("released, it ends with %v", ctx.Err())
	}
}
