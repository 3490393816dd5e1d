package contextkit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

func TestADetachedContextHasTheEndOfItsParentAndNothingElse(t *testing.T) {
	type key struct{}
	deadline := time.Now().Add(time.Hour)
	parent, end := context.WithCancelCause(context.WithValue(contextkit.PlatformContext(t.Context()), key{}, "secret"))
	defer end(nil)
	parent, cancel := context.WithDeadline(parent, deadline)
	defer cancel()

	ctx, release := contextkit.Detach(parent)
	defer release()
	if _, carried := contextkit.FromContext(ctx); carried || ctx.Value(key{}) != nil {
		t.Error("it carries what its parent does")
	}
	if until, ok := ctx.Deadline(); !ok || !until.Equal(deadline) {
		t.Errorf("its deadline is %v, want its parent's, %v", until, deadline)
	}
	child, leave := context.WithCancel(ctx)
	defer leave()
	end(errors.New("an inner matter"))
	<-child.Done()
	if err := context.Cause(ctx); !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v, because of %v", ctx.Err(), err)
	}
}
