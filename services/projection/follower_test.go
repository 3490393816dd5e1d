package projection

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// closing is a store that can only be closed.
type closing struct{ store.Store }

func (closing) Close() error { return nil }

func TestFollower_EndWakesWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &follower{rows: closing{}, checkpoint: 7, ended: make(chan struct{})}
		answers := make(chan error, 2)
		for _, sequence := range []uint64{7, 8} {
			go func() { answers <- f.waitReached(t.Context(), "wallets", sequence) }()
			synctest.Wait()
		}
		if err := <-answers; err != nil {
			t.Errorf("reached position: %v", err)
		}
		if len(answers) > 0 {
			t.Fatalf("position not reached: %v", <-answers)
		}
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		if err := <-answers; !errors.Is(err, errMoved) {
			t.Errorf("position not reached, views moved: %v", err)
		}
		if _, err := f.query(t.Context(), nil, 0, query.Plan{}, nil); !errors.Is(err, errMoved) {
			t.Errorf("rows of moved views: %v", err)
		}
	})
}
