//go:build linux

package natshealth_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/disk/disktest"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// A NATS server whose disk has refused a write does not answer publishes. A journal notices it,
// refuses further events without waiting, and resumes once the server has been restarted with room.
func TestStorage_NoticesAServerThatStoresNothing(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t, 64<<20)
	options := func(port int) *server.Options {
		return &server.Options{StoreDir: filepath.Join(dir, "nats"), Port: port, SyncAlways: true}
	}
	s := natstest.Server(t, options(0))
	lines := make(natstest.Lines, 1024)
	storage := natshealth.NewStorage(zerolog.New(lines))
	js := storage.Observe(natstest.Connect(t, s))
	if natshealth.StorageOf(js) != storage {
		t.Fatal("the Storage of an observed JetStream is not known")
	}
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	stored, last := 0, uint64(0)
	appendOne := func() error {
		event := natstest.Events("w", stored+1, 1, "key-"+strconv.Itoa(stored))
		err := eventLog.Append(ctx, acme, last, event)
		if err == nil {
			stored, last = stored+1, event[0].Sequence
		}
		return err
	}
	if err := appendOne(); err != nil {
		t.Fatal(err)
	}
	free := disktest.Fill(t, dir)
	for appendOne() == nil { // until the block of the file system is full
	}
	if err := storage.Check(streams.Events); err != nil {
		t.Errorf("%v after one append without an answer: a server may have been slow", err)
	}
	for range 2 { // the first one may begin before the stream has answered that it is there
		if err := appendOne(); err == nil {
			t.Error("an append is stored")
		}
	}
	lines.Await(t, "the journal stores nothing, as after its disk has been full")
	var known *natshealth.StorageError
	if err := appendOne(); !errors.Is(err, journal.ErrRefused) || !errors.As(err, &known) ||
		known.Refusal != natshealth.RefusalNoAck {
		t.Errorf("%v: want a refusal", err)
	}
	if natstest.Writable(t, storage, streams.Events) != 0 || natstest.Writable(t, storage, streams.Audit) != 1 {
		t.Error("headgate_stream_writable is not 0 for EVENTS alone")
	}
	free()
	restored := js.Conn().StatusChanged(nats.CONNECTED)
	s.Shutdown()
	s.WaitForShutdown()
	natstest.Server(t, options(portOf(t, s)))
	natstest.Await(t, restored, "the client reconnects")
	lines.Await(t, "the stream is used again")
	if err := appendOne(); err != nil {
		t.Error(err)
	}
	if got := natstest.Load(t, eventLog, acme, "w"); len(got) != stored {
		t.Errorf("%d events, want the %d that were acknowledged", len(got), stored)
	}
}

// portOf returns the port of a server.
func portOf(t *testing.T, s *server.Server) int {
	t.Helper()
	port, err := strconv.Atoi(s.ClientURL()[len("nats://127.0.0.1:"):])
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A refusal by the server's or the account's limit is one for lack of room, and the next append
// that is stored ends it.
func TestStorage_LimitOfTheServer(t *testing.T) {
	s := natstest.Server(t, &server.Options{JetStreamMaxStore: 64 << 10})
	lines := make(natstest.Lines, 1024)
	storage := natshealth.NewStorage(zerolog.New(lines))
	eventLog, err := journal.Open(t.Context(), storage.Observe(natstest.Connect(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	last := uint64(0)
	for n := 1; ; n++ {
		event := natstest.Events("w", n, 1, "")
		if err = eventLog.Append(ctx, acme, last, event); err != nil {
			break
		}
		last = event[0].Sequence
	}
	if !errors.Is(err, journal.ErrRefused) {
		t.Errorf("%v: want a refusal", err)
	}
	lines.Await(t, "the disk of the journal is full")
	var known *natshealth.StorageError
	if err := storage.Check(streams.Events); !errors.As(err, &known) || known.Refusal != natshealth.RefusalNoRoom {
		t.Errorf("%v: want a stream without room", err)
	}
}
