package auth_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/auth"
)

// A source that does not answer delays a read by 5 s at most: the next read begins, and the current
// keys stay in use.
func TestSources_SilentSourceIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var silent bool
		var waits []time.Duration
		source := func(document []byte) auth.Source {
			return func(ctx context.Context) ([]byte, error) {
				if !silent {
					return document, nil
				}
				began := time.Now()
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
				waits = append(waits, time.Since(began))
				return nil, ctx.Err()
			}
		}
		first := newSigner(t)
		ring, err := auth.OpenKeyRing(t.Context(), source(first.set(t)))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := auth.OpenAPIKeys(t.Context(), source([]byte("[]")))
		if err != nil {
			t.Fatal(err)
		}
		silent = true
		for name, run := range map[string]func(context.Context, func(), func(error)){
			"keys of tokens": ring.Run, "API keys": keys.Run,
		} {
			waits = nil
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				run(ctx, func() { t.Errorf("changed: %s", name) }, func(error) {})
			}()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			complete := len(waits) // cancel cuts the next one short
			cancel()
			<-done
			if complete < 3 {
				t.Errorf("%s: %d reads in 5 minutes", name, complete)
			}
			for _, wait := range waits[:complete] {
				if wait != 5*time.Second {
					t.Errorf("%s: timeout of a read is %v, want 5 s", name, wait)
				}
			}
		}
	})
}
