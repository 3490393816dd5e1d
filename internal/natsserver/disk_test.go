//go:build linux

package natsserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/disk/disktest"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// watched is an embedded server that examines itself.
type watched struct {
	lines   natstest.Lines
	storage *natshealth.Storage
	js      jetstream.JetStream
	journal *journal.Journal
}

func startWatched(t *testing.T, dir string) watched {
	t.Helper()
	w := watched{lines: make(natstest.Lines, 1024)}
	log := zerolog.New(w.lines)
	w.storage = natshealth.NewStorage(log)
	embedded, err := natsserver.Start(t.Context(), natsserver.Config{Dir: dir, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	conn, err := embedded.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	plain, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	w.js = w.storage.Observe(plain)
	if err := setup.Ensure(t.Context(), w.js, 1); err != nil {
		t.Fatal(err)
	}
	if w.journal, err = journal.Open(t.Context(), w.js); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- embedded.Run(ctx, w.storage) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// refused fails the test unless the storage refuses events for a reason.
func (w watched) refused(t *testing.T, want natshealth.Refusal) {
	t.Helper()
	var storage *natshealth.StorageError
	if err := w.storage.Check(streams.Events); !errors.As(err, &storage) || storage.Refusal != want {
		t.Errorf("%v: want the refusal %s", err, want)
	}
}

// A full disk is noticed, named, and survived: once there is room the server is restarted, and
// every event that was acknowledged is there once, and no other.
func TestEmbedded_ContinuesOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t, 64<<20)
	w := startWatched(t, filepath.Join(dir, "nats"))
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	var last uint64
	stored := map[string]bool{}
	appendOne := func(n int) error {
		event := natstest.Events("w", n, 1, fmt.Sprintf("key-%d", n))
		err := w.journal.Append(ctx, acme, last, event)
		if err == nil {
			last, stored[event[0].ID] = event[0].Sequence, true
		}
		return err
	}
	for round := range 2 {
		if err := appendOne(len(stored) + 1); err != nil {
			t.Fatal(err)
		}
		free := disktest.Fill(t, dir)
		for appendOne(len(stored)+1) == nil { // until the block of the file system is full
		}
		if line := w.lines.Await(
			t, "the disk of the journal refuses writes",
		); !strings.Contains(line, "no space left on device") || !strings.Contains(line, dir) {
			t.Errorf("%s: want the cause and the directory", line)
		}
		w.refused(t, natshealth.RefusalNoRoom)
		var known *natshealth.StorageError
		if err := appendOne(len(stored) + 1); !errors.Is(err, journal.ErrRefused) || !errors.As(err, &known) ||
			!strings.Contains(known.Error(), "disk") {
			t.Errorf("round %d: %v: want a refusal that names the disk", round, err)
		}
		if value := natstest.Writable(t, w.storage, streams.Events); value != 0 {
			t.Errorf("headgate_stream_writable is %v", value)
		}
		if got := natstest.Load(t, w.journal, acme, "w"); len(got) != len(stored) { // reads continue
			t.Errorf("round %d: %d events are read, want %d", round, len(got), len(stored))
		}
		restored := w.js.Conn().StatusChanged(nats.CONNECTED)
		free()
		w.lines.Await(t, "the journal stores messages again")
		natstest.Await(t, restored, "the client reconnects")
		if err := w.storage.Check(streams.Events); err != nil || natstest.Writable(t, w.storage, streams.Events) != 1 {
			t.Errorf("%v: want a stream that stores", err)
		}
	}
	if err := appendOne(len(stored) + 1); err != nil {
		t.Errorf("%v: want an append on the last event that was acknowledged", err)
	}
	got := natstest.Load(t, w.journal, acme, "w")
	for _, event := range got {
		if !stored[event.ID] {
			t.Errorf("event %s was not acknowledged", event.ID)
		}
	}
	if len(got) != len(stored) {
		t.Errorf("%d events, want the %d that were acknowledged", len(got), len(stored))
	}
}

// A write that the disk refuses leaves a sequence without an event in the server's count. It was
// never acknowledged: the journal's end is not missing, and commands continue.
func TestEmbedded_AnEventThatAFullDiskRefusedIsNoLostEnd(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 2} {
		t.Run(fmt.Sprintf("%d events before", before), func(t *testing.T) { refusedEventIsNoLostEnd(t, before) })
	}
}

func refusedEventIsNoLostEnd(t *testing.T, before int) {
	t.Helper()
	dir := disktest.Small(t, 64<<20)
	w := startWatched(t, filepath.Join(dir, "nats"))
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	acknowledged := 0
	appendOne := func() error {
		err := w.journal.Append(ctx, acme, 0, natstest.Events(fmt.Sprintf("w%d", acknowledged+1), 1, 1, ""))
		if err == nil {
			acknowledged++
		}
		return err
	}
	for acknowledged < before {
		if err := appendOne(); err != nil {
			t.Fatal(err)
		}
	}
	free := disktest.Fill(t, dir)
	for w.storage.Check(streams.Events) == nil {
		_ = appendOne() // stored until the block of the file system is full
	}
	restored := w.js.Conn().StatusChanged(nats.CONNECTED)
	free()
	w.lines.Await(t, "the journal stores messages again")
	natstest.Await(t, restored, "the client reconnects")
	for _, when := range []string{"after the restart", "after another event"} {
		if err := w.journal.Integrity().Check(contextkit.PlatformContext(t.Context())); err != nil {
			t.Fatal(err)
		}
		damage := w.journal.Integrity().Damage()
		t.Logf("%s, with %d acknowledged: %v", when, acknowledged, damage)
		if damage != nil && damage.End != nil {
			t.Errorf("%s: %v: want no lost end", when, damage)
		}
		if err := appendOne(); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= acknowledged; n++ {
		if got := natstest.Load(t, w.journal, acme, fmt.Sprintf("w%d", n)); len(got) != 1 {
			t.Errorf("%d events of wallet %d, want the acknowledged one", len(got), n)
		}
	}
	if last, err := w.journal.Last(ctx, acme); err != nil || last < uint64(acknowledged) {
		t.Errorf("the last sequence is %d after %d events, %v", last, acknowledged, err)
	}
}

// While the directory is gone nothing is stored, and no empty journal takes its place; when it is
// back, the journal continues.
func TestEmbedded_NoticesThatItsDirectoryIsGone(t *testing.T) {
	t.Parallel()
	for _, part := range []string{".", "jetstream"} {
		t.Run(part, func(t *testing.T) {
			parent := t.TempDir()
			dir, moved := filepath.Join(parent, "nats"), filepath.Join(parent, "moved")
			prepare(t, dir)
			w := startWatched(t, dir)
			acme := natstest.Tenant(t, "acme")
			ctx := contextkit.TenantContext(t.Context(), acme)
			first := natstest.Events("w", 1, 1, "")
			if err := w.journal.Append(ctx, acme, 0, first); err != nil {
				t.Fatal(err)
			}
			gone := filepath.Join(dir, part)
			if err := os.Rename(gone, moved); err != nil {
				t.Fatal(err)
			}
			if line := w.lines.Await(t, "has disappeared"); !strings.Contains(line, dir) {
				t.Errorf("%s: want the directory", line)
			}
			w.refused(t, natshealth.RefusalGone)
			if err := w.journal.Append(
				ctx, acme, first[0].Sequence, natstest.Events("w", 2, 1, ""),
			); !errors.Is(err, journal.ErrRefused) {
				t.Errorf("%v: want a refusal", err)
			}
			if got := natstest.Load(t, w.journal, acme, "w"); len(got) != 1 {
				t.Errorf("%d events are read, want 1", len(got))
			}
			if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v: want nothing made in the directory's place", err)
			}
			if err := os.Rename(moved, gone); err != nil {
				t.Fatal(err)
			}
			w.lines.Await(t, "stores messages again")
			if err := w.journal.Append(ctx, acme, first[0].Sequence, natstest.Events("w", 2, 1, "")); err != nil {
				t.Error(err)
			}
		})
	}
}

// prepare makes the streams in a directory.
func prepare(t *testing.T, dir string) {
	t.Helper()
	embedded, err := natsserver.Start(t.Context(), natsserver.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	conn, err := embedded.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err == nil {
		err = setup.Ensure(t.Context(), js, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}
