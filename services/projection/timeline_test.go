package projection_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/store"
)

// A rebuild adds no spans when it applies events again whose timelines have a span of their views.
func TestTimeline_RebuildAddsNoSpans(t *testing.T) {
	js := natstest.Start(t)
	var spans atomic.Int32
	var f *fixture
	run := func(open store.Opener) {
		t.Helper()
		before := f
		recorder, err := timeline.NewObserved(js, func(_ contextkit.RequestContext, h timeline.Span) {
			if h.Kind == timeline.KindProjection {
				spans.Add(1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		f = startTimed(t, js, open, model.Wallet, projection.Config{}, recorder)
		if before != nil {
			f.last, f.versions, f.sequence = before.last, before.versions, before.sequence
		}
	}
	run(sqliteIn(t))
	opened := func(wallet string) {
		t.Helper()
		f.append(t, "acme", wallet, "opened", `{"owner":"ada"}`)
	}
	has := func(rows int, total int32) {
		t.Helper()
		var ids []string
		err := errors.New("not yet read")
		// Spans are recorded once the rows are stored.
		for deadline := time.After(10 * time.Second); err != nil || len(ids) != rows || spans.Load() != total; {
			select {
			case <-deadline:
				t.Fatalf("%d wallets, %v, with %d spans; want %d with %d", len(ids), err, spans.Load(), rows, total)
			case <-time.After(5 * time.Millisecond):
			}
			ids, err = f.query(t, &projectionv1.Query{})
		}
	}
	opened("a")
	opened("b")
	has(2, 2)
	opened("c")
	has(3, 3)
	f.stop()
	run(sqliteIn(t)) // an empty database
	has(3, 3)
	opened("d")
	has(4, 4)
}
