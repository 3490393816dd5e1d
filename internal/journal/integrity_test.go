package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// damagedEvents fill three blocks of a stream's files.
const damagedEvents = 700

// wholeJournal returns the directory of a stopped server whose journal has damagedEvents
// recorded events, one per wallet.
func wholeJournal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	js, stop := natstest.StartStop(t, dir)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	eventLog, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	appendLarge(ctx, t, eventLog, 0, damagedEvents)
	if damage := eventLog.Integrity().Damage(); damage != nil {
		t.Fatal(damage)
	}
	if err := journal.Check(contextkit.PlatformContext(ctx), eventLog); err != nil { // it records the tail
		t.Fatal(err)
	}
	stop()
	return dir
}

func appendLarge(ctx context.Context, t *testing.T, journal *journal.Journal, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		event := eventsOf(fmt.Sprintf("w%d", n), 1, 1)
		event[0].Data = fmt.Appendf(nil, `{"text":"%030000d"}`, n)
		if err := journal.Append(ctx, natstest.Tenant(t, "acme"), 0, event); err != nil {
			t.Fatal(err)
		}
	}
}

// copied returns a copy of a server's directory.
func copied(t *testing.T, dir string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "nats")
	if err := os.CopyFS(out, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIntegrity_DamageOfFilesIsFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not concurrent, and takes a minute under the race detector")
	}
	whole := wholeJournal(t)
	block := func(t *testing.T, dir string, n int) string {
		blocks := natstest.Blocks(t, dir, streams.Events)
		return blocks[(n+len(blocks))%len(blocks)]
	}
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	index := func(t *testing.T, dir string) { natstest.DropIndex(t, dir, streams.Events) }
	for _, tc := range []struct {
		name     string
		do       func(t *testing.T, dir string)
		gap, end bool
		scrub    bool // it takes reading the journal to find it
	}{
		{name: "none", do: func(*testing.T, string) {}},
		{name: "no index", do: index},
		{
			name: "altered bytes",
			do:   func(t *testing.T, dir string) { natstest.Alter(t, block(t, dir, 0), 100_000); index(t, dir) },
			gap:  true,
		},
		{
			name:  "altered bytes under an index",
			do:    func(t *testing.T, dir string) { natstest.Alter(t, block(t, dir, 0), 100_000) },
			gap:   true,
			scrub: true,
		},
		{
			name: "altered bytes of the last block",
			do:   func(t *testing.T, dir string) { natstest.Alter(t, block(t, dir, -1), 100_000); index(t, dir) },
			end:  true,
		},
		{
			name: "altered last event",
			do:   func(t *testing.T, dir string) { natstest.Alter(t, block(t, dir, -1), -200); index(t, dir) },
			end:  true,
		},
		{
			name: "altered last event under an index",
			do:   func(t *testing.T, dir string) { natstest.Alter(t, block(t, dir, -1), -200) },
			gap:  true,
			end:  true,
		},
		{name: "missing first block", do: func(t *testing.T, dir string) { remove(t, block(t, dir, 0)) }, gap: true},
		{
			name: "missing block",
			do:   func(t *testing.T, dir string) { remove(t, block(t, dir, 1)); index(t, dir) },
			gap:  true,
		},
		{
			name: "missing last block",
			do:   func(t *testing.T, dir string) { remove(t, block(t, dir, -1)); index(t, dir) },
			end:  true,
		},
		{
			name: "missing last block under an index",
			do:   func(t *testing.T, dir string) { remove(t, block(t, dir, -1)) },
			gap:  true,
			end:  true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := copied(t, whole)
			tc.do(t, dir)
			js, _ := natstest.StartStop(t, dir)
			ctx := contextkit.PlatformContext(t.Context())
			eventLog, err := journal.Open(ctx, js)
			if err != nil {
				t.Fatal(err)
			}
			if tc.scrub {
				if damage := eventLog.Integrity().Damage(); damage != nil {
					t.Errorf("found without a read: %v", damage)
				}
				if err := errors.Join(journal.Scrub(ctx, eventLog), journal.Check(ctx, eventLog)); err != nil {
					t.Fatal(err)
				}
			}
			damage := eventLog.Integrity().Damage()
			t.Log(damage)
			if damage == nil {
				if tc.gap || tc.end {
					t.Fatal("no damage is reported")
				}
				return
			}
			if gap, end := len(damage.Gaps) > 0, damage.End != nil; gap != tc.gap || end != tc.end {
				t.Fatalf("gap %v, end %v: want %v and %v", gap, end, tc.gap, tc.end)
			}
			if !strings.Contains(damage.String(), "damaged") ||
				eventLog.Integrity().Degraded()[journal.DegradedJournal] != damage.String() {
				t.Errorf("%q", damage)
			}
			acme := natstest.Tenant(t, "acme")
			tenant := contextkit.TenantContext(ctx, acme)
			appended := func() error {
				return eventLog.Append(tenant, acme, 0,
					eventsOf("new-"+contextkit.NewID(), 1, 1))
			}
			if err := appended(); errors.Is(err, journal.ErrEndMissing) != tc.end {
				t.Errorf("append: %v", err)
			}

			epoch := eventLog.Epoch()
			loss, err := journal.AcceptLoss(ctx, js, "operator", "the disk is gone")
			if err != nil {
				t.Fatal(err)
			}
			if err := journal.Check(ctx, eventLog); err != nil {
				t.Fatal(err)
			}
			if damage := eventLog.Integrity().Damage(); damage != nil || (eventLog.Epoch() != epoch) != tc.end ||
				eventLog.Epoch() != loss.Epoch {
				t.Errorf("after the loss was accepted: %v, epoch %d after %d, %+v", damage, eventLog.Epoch(), epoch,
					loss)
			}
			if err := appended(); err != nil {
				t.Error(err)
			}
			if _, err := journal.AcceptLoss(ctx, js, "operator", "again"); !errors.Is(err, journal.ErrNoLoss) {
				t.Errorf("intact journal: %v", err)
			}
			if err := errors.Join(journal.Scrub(ctx, eventLog), journal.Check(ctx, eventLog)); err != nil {
				t.Fatal(err)
			}
			again, err := journal.Open(ctx, js)
			if err != nil || again.Integrity().Damage() != nil || again.Epoch() != loss.Epoch {
				t.Errorf("reopened: %v, %v", again.Integrity().Damage(), err)
			}
		})
	}
}

// TestIntegrity_OtherEventsAtTheEndAreFound appends, after the journal's end was lost, as many
// events as were lost: its last sequence is not below the recorded one.
func TestIntegrity_OtherEventsAtTheEndAreFound(t *testing.T) {
	dir := copied(t, wholeJournal(t))
	blocks := natstest.Blocks(t, dir, streams.Events)
	if err := os.Remove(blocks[len(blocks)-1]); err != nil {
		t.Fatal(err)
	}
	natstest.DropIndex(t, dir, streams.Events)
	js, _ := natstest.StartStop(t, dir)
	acme := natstest.Tenant(t, "acme")
	for n := range damagedEvents { // as a process of an earlier version does
		if _, err := js.Publish(
			t.Context(), streams.EventSubject(acme, "wallet", fmt.Sprintf("other%d", n)), []byte("{}"),
		); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if damage := journal.Integrity().Damage(); damage == nil || damage.End == nil ||
		!strings.Contains(damage.End.Why, "other event") {
		t.Errorf("%v", damage)
	}
}

// TestIntegrity_ReportedSequenceIsRecorded reports a sequence that the journal once had.
func TestIntegrity_ReportedSequenceIsRecorded(t *testing.T) {
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	eventLog, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	changed := eventLog.Integrity().Changed()
	if err := eventLog.Integrity().Report(ctx, 7, "a view is ahead of the journal"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("no change was signalled")
	}
	other, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []*journal.Journal{eventLog, other} {
		if damage := j.Integrity().Damage(); damage == nil || damage.End == nil || damage.End.Recorded != 7 {
			t.Errorf("%v", damage)
		}
	}
}

// TestEnsureStreams_NewJournalBesideRecordsIsRefused takes EVENTS away, whole or its header alone.
func TestEnsureStreams_NewJournalBesideRecordsIsRefused(t *testing.T) {
	t.Parallel()
	whole := wholeJournal(t)
	for name, do := range map[string]func(t *testing.T, stream string){
		"removed": func(t *testing.T, stream string) {
			if err := os.RemoveAll(stream); err != nil {
				t.Fatal(err)
			}
		},
		"altered header": func(t *testing.T, stream string) {
			natstest.Alter(t, filepath.Join(stream, "meta.inf"),
				10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copied(t, whole)
			do(t, natstest.StreamDir(dir, streams.Events))
			embedded, err := natsserver.Start(t.Context(), natsserver.Config{Dir: dir, LazySync: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(embedded.Close)
			conn, err := embedded.Connect(t.Name())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(conn.Close)
			js, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			ctx := contextkit.PlatformContext(t.Context())
			for range 2 {
				if err := setup.Ensure(ctx, js, 1); !errors.Is(err, setup.ErrJournalMissing) ||
					!strings.Contains(err.Error(), "--new-journal") {
					t.Fatalf("without the option: %v", err)
				}
			}
			if err := setup.Ensure(ctx, js, 1, setup.NewJournal); err != nil {
				t.Fatal(err)
			}
			if err := setup.Ensure(ctx, js, 1); err != nil {
				t.Errorf("the next start: %v", err)
			}
			journal, err := journal.Open(ctx, js)
			if err != nil || journal.Integrity().Damage() != nil {
				t.Fatalf("%v, %v", journal.Integrity().Damage(), err)
			}
			acme := natstest.Tenant(t, "acme")
			if err := journal.Append(
				contextkit.TenantContext(ctx, acme), acme, 0, eventsOf("fresh", 1, 1),
			); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIntegrity_DerivedDataProvesALostEnd notes sequences that views have reached.
func TestIntegrity_DerivedDataProvesALostEnd(t *testing.T) {
	js := natstest.Start(t)
	acme := natstest.Tenant(t, "acme")
	ctx, cancel := context.WithCancel(contextkit.TenantContext(t.Context(), acme))
	journal, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Append(ctx, acme, 0, eventsOf("w", 1, 3)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- journal.Integrity().Run(ctx, false, zerolog.Nop()) }()
	changed := journal.Integrity().Changed()
	journal.Integrity().Reached(journal.Epoch(), 9, "a view is ahead of the journal")
	natstest.Await(t, changed, "the damage is found")
	cancel()
	if err := natstest.Await(t, done, "the integrity ends"); err != nil {
		t.Fatal(err)
	}
	if damage := journal.Integrity().Damage(); damage == nil || damage.End == nil || damage.End.Last != 3 ||
		damage.End.Recorded != 9 {
		t.Errorf("%v", damage)
	}
}

// losingQuestions is a JetStream that loses the first requests for a stream or a bucket, as a
// change of leaders does: they are not answered.
type losingQuestions struct {
	jetstream.JetStream

	left atomic.Int32
}

func (l *losingQuestions) lost(ctx context.Context) bool {
	if l.left.Add(-1) < 0 {
		return false
	}
	<-ctx.Done()
	return true
}

func (l *losingQuestions) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if l.lost(ctx) {
		return nil, ctx.Err()
	}
	return l.JetStream.Stream(ctx, name)
}

func (l *losingQuestions) KeyValue(ctx context.Context, name string) (jetstream.KeyValue, error) {
	if l.lost(ctx) {
		return nil, ctx.Err()
	}
	return l.JetStream.KeyValue(ctx, name)
}

// The context has a deadline long after that of one request.
func TestIntegrity_LostQuestionsAreAskedAgain(t *testing.T) {
	t.Parallel()
	js := &losingQuestions{JetStream: natstest.Start(t)}
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), time.Hour)
	defer cancel()
	js.left.Store(1)
	eventLog, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	js.left.Store(1)
	if err := journal.Check(ctx, eventLog); err != nil {
		t.Error(err)
	}
}

// The leader of the journal's record answers nothing, as in a cluster that has lost its majority,
// while the connection stays.
func TestIntegrity_CheckEndsWithoutAnswers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the check waits for missing answers")
	}
	s := natstest.Server(t, &server.Options{})
	js := natstest.Connect(t, s)
	ctx := contextkit.PlatformContext(t.Context()) // without a deadline, as that of a process
	eventLog, err := journal.Open(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	unanswered, err := js.Conn().SubscribeSync("unanswered.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.GlobalAccount().AddMapping("$JS.API.STREAM.MSG.GET.*", "unanswered.$1"); err != nil {
		t.Fatal(err)
	}
	if err := journal.Check(ctx, eventLog); !natsclient.Away(err) {
		t.Errorf("got %v, want an error of an unreachable server", err)
	}
	if asked, _, err := unanswered.Pending(); asked < 2 || err != nil {
		t.Errorf("%d requests, %v; want a retry", asked, err)
	}
}
