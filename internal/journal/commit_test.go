package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// group returns a journal whose appends are committed in groups.
func group(t *testing.T, js jetstream.JetStream) *journal.Journal {
	t.Helper()
	journal, err := journal.Open(t.Context(), js, journal.GroupCommit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	return journal
}

// stored returns how many of the journal's first messages came alone and in groups
// (two or more aggregates' with one batch id).
func stored(t *testing.T, js jetstream.JetStream, messages uint64) (alone, grouped int) {
	t.Helper()
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	subjects, counts := map[string]map[string]bool{}, map[string]int{}
	for seq := uint64(1); seq <= messages; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		id := msg.Header.Get(jetstreamext.BatchIDHeader)
		if id == "" {
			id = msg.Subject
		}
		if subjects[id] == nil {
			subjects[id] = map[string]bool{}
		}
		subjects[id][msg.Subject] = true
		counts[id]++
	}
	for id, in := range subjects {
		if len(in) > 1 {
			grouped += counts[id]
		} else {
			alone += counts[id]
		}
	}
	return alone, grouped
}

func TestGroupCommit_WaitingAppendsShareAWrite(t *testing.T) {
	t.Parallel()
	callers := 200
	if testing.Short() {
		callers = 100
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for _, test := range []struct {
		name  string
		wrong func(n int) bool // whether a caller appends what is refused
	}{
		{"valid appends", func(int) bool { return false }},
		{"wrong last sequence in a group", func(n int) bool { return n == 77 }},
		{"many wrong last sequences", func(n int) bool { return n%3 == 0 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			js := natstest.Start(t)
			journal := group(t, js)
			// Whether enough wait for each other is up to the machine: until they have.
			for round, grouped := 0, 0; grouped == 0; round++ {
				if round == 50 {
					t.Fatal("nothing was written in groups")
				}
				begin := make(chan struct{})
				var all sync.WaitGroup
				for n := range callers {
					all.Go(func() {
						<-begin
						appendTwice(ctx, t, journal, acme, fmt.Sprintf("w-%d-%d", round, n), n, test.wrong(n))
					})
				}
				close(begin)
				all.Wait()
				last, err := journal.Last(t.Context(), acme)
				if err != nil {
					t.Fatal(err)
				}
				var alone int
				alone, grouped = stored(t, js, last)
				t.Logf("%d events appended singly, %d in groups", alone, grouped)
			}
		})
	}
}

// appendTwice appends events of an aggregate that is new, one to three by its number, and
// one more, which must be refused if it is wrong. It reads what was stored.
func appendTwice(
	ctx context.Context, t *testing.T, eventLog *journal.Journal, tenant contextkit.TenantID, id string, n int,
	wrong bool,
) {
	t.Helper()
	first := natstest.Events(id, 1, 1+n%3, "first-"+id)
	if err := eventLog.Append(ctx, tenant, 0, first); err != nil {
		t.Errorf("%s: %v", id, err)
		return
	}
	last := first[len(first)-1].Sequence
	next, want := natstest.Events(id, 1+len(first), 1, "next-"+id), error(nil)
	if wrong {
		switch n % 2 {
		case 0:
			last, want = last-1, journal.ErrConflict
		case 1:
			next[0].Command.IdempotencyKey, want = "first-"+id, journal.ErrDuplicate
		}
	}
	if err := eventLog.Append(ctx, tenant, last, next); !errors.Is(err, want) {
		t.Errorf("%s: err = %v, want %v", id, err, want)
	}
	got := natstest.Load(t, eventLog, tenant, id)
	wanted := len(first)
	if want == nil {
		wanted++
	}
	if len(got) != wanted {
		t.Errorf("%s has %d events, want %d", id, len(got), wanted)
		return
	}
	for at, event := range append(first, next...)[:wanted] {
		if got[at].Sequence != event.Sequence || got[at].ID != event.ID {
			t.Errorf("%s: event %d is %s at %d, appended as %s at %d", id, at, got[at].ID, got[at].Sequence, event.ID,
				event.Sequence)
		}
	}
}

func TestGroupCommit_WaitingAppendEndsWithItsContext(t *testing.T) {
	js := natstest.StartSynced(t)
	journal := group(t, js)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	var all sync.WaitGroup
	var stand, gone atomic.Int64
	for n := range 300 {
		all.Go(func() {
			// Some end while they wait, some on their way, some not at all.
			brief, cancel := context.WithTimeout(ctx, time.Duration(n)*time.Millisecond)
			defer cancel()
			id := fmt.Sprintf("w-%d", n)
			switch err := journal.Append(brief, acme, 0, natstest.Events(id, 1, 1, "")); {
			case err == nil:
				stand.Add(1)
				if len(natstest.Load(t, journal, acme, id)) != 1 {
					t.Errorf("%s was appended and is missing", id)
				}
			case errors.Is(err, context.DeadlineExceeded):
				gone.Add(1)
			default:
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d stored, %d abandoned", stand.Load(), gone.Load())
	// They leave no places occupied: more appends than may be in flight succeed.
	for n := range 100 {
		all.Go(func() {
			if err := journal.Append(ctx, acme, 0, natstest.Events(fmt.Sprintf("after-%d", n), 1, 1, "")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestGroupCommit_LostConnectionLosesNothingAcknowledged(t *testing.T) {
	js := natstest.Start(t)
	eventLog := group(t, js)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	var mu sync.Mutex
	acknowledged := map[string]int{} // events by aggregate
	var all sync.WaitGroup
	var count atomic.Int64
	enough := make(chan struct{})
	for n := range 100 {
		all.Go(func() {
			id := fmt.Sprintf("w-%d", n)
			for last, version := uint64(0), 1; ; version++ {
				next := natstest.Events(id, version, 1, "")
				if err := eventLog.Append(ctx, acme, last, next); err != nil {
					return
				}
				last = next[0].Sequence
				mu.Lock()
				acknowledged[id] = version
				mu.Unlock()
				if count.Add(1) == 1000 {
					close(enough)
				}
			}
		})
	}
	natstest.Await(t, enough, "a thousand appends are acknowledged")
	// An append that begins on the new connection succeeds: connections are lost until all have ended.
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	for over := false; !over; {
		if err := js.Conn().ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended: // none has waited for an answer that could not come any more
			over = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for id, want := range acknowledged {
		var got []journal.Event
		for err := errors.New("not read"); err != nil; { // the notice of a former disconnection may end a read
			got = nil
			err = eventLog.Load(ctx, acme, "wallet", id, 1, 0, func(e journal.Event) error {
				got = append(got, e)
				return nil
			})
			if err != nil && time.Now().After(deadline) {
				t.Fatalf("%s cannot be read: %v", id, err)
			}
		}
		// The append that was not acknowledged may stand or not.
		if len(got) < want || len(got) > want+1 {
			t.Errorf("%s: %d events, %d acknowledged", id, len(got), want)
		} else if got[len(got)-1].Version != int64(len(got)) {
			t.Errorf("%s: the last of %d events has version %d", id, len(got), got[len(got)-1].Version)
		}
	}
}

func TestGroupCommit_BatchesBeyondTheServersLimitWait(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	one, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	batches := 200
	if testing.Short() {
		batches = 100 // twice as many as the server takes
	}
	for name, journal := range map[string]*journal.Journal{"one by one": one, "in groups": group(t, js)} {
		var all sync.WaitGroup
		for n := range batches {
			all.Go(func() {
				if err := journal.Append(
					ctx, acme, 0,
					natstest.Events(fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), n), 1, 3, ""),
				); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		all.Wait()
	}
}
