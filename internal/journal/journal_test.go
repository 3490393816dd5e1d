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

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

func TestAppend_IsAllOrNothingAndChecksTheLastEvent(t *testing.T) {
	eventLog, _ := natstest.OpenJournal(t)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)

	first := natstest.Events("w", 1, 3, "key-1")
	if err := eventLog.Append(ctx, acme, 0, first); err != nil {
		t.Fatal(err)
	}
	if first[0].Sequence != 1 || first[2].Sequence != 3 {
		t.Fatalf("sequences %d..%d, want 1..3", first[0].Sequence, first[2].Sequence)
	}
	refused := []struct {
		name string
		last uint64
		list []journal.Event
		want error
	}{
		{"batch after the wrong event", 0, natstest.Events("w", 1, 2, ""), journal.ErrConflict},
		{"single event after the wrong event", 2, natstest.Events("w", 3, 1, ""), journal.ErrConflict},
		{"batch under a used key", 3, natstest.Events("w", 4, 2, "key-1"), journal.ErrDuplicate},
		{"single event under a used key", 3, natstest.Events("w", 4, 1, "key-1"), journal.ErrDuplicate},
	}
	for _, tc := range refused {
		t.Run(tc.name, func(t *testing.T) {
			if err := eventLog.Append(ctx, acme, tc.last, tc.list); !errors.Is(err, tc.want) {
				t.Fatalf("err = %v, want %v", err, tc.want)
			}
			if got := natstest.Load(t, eventLog, acme, "w"); len(got) != 3 {
				t.Fatalf("%d events in the journal, want 3", len(got))
			}
		})
	}
	if err := eventLog.Append(ctx, acme, 3, natstest.Events("w", 4, 1, "key-2")); err != nil {
		t.Fatal(err)
	}
	got := natstest.Load(t, eventLog, acme, "w")
	for i, event := range got {
		if event.Version != int64(i+1) || string(event.Data) != fmt.Sprintf(`{"amount":%d}`, i+1) ||
			event.Context.TenantID != acme {
			t.Errorf("event %d is %+v", i, event)
		}
	}
	t.Run("an event under another tenant's context is rejected", func(t *testing.T) {
		if err := eventLog.Append(ctx, natstest.Tenant(t, "globex"), 0, natstest.Events("w", 1, 1, "")); err == nil {
			t.Fatal("the event was appended")
		}
	})
	t.Run("an event without context is rejected", func(t *testing.T) {
		if err := eventLog.Append(
			t.Context(), acme, 4, natstest.Events("w", 5, 1, ""),
		); !errors.Is(err, contextkit.ErrNoContext) {
			t.Fatalf("err = %v", err)
		}
	})
	t.Run("an event over the message limit is rejected", func(t *testing.T) {
		huge := natstest.Events("w", 5, 1, "")
		huge[0].Data = []byte(`"` + strings.Repeat("x", streams.MaxMessageBytes) + `"`)
		if err := eventLog.Append(ctx, acme, 4, huge); !errors.Is(err, journal.ErrTooLarge) {
			t.Fatalf("err = %v", err)
		}
	})
}

func TestAppend_RefusalByJetStreamIsDefinite(t *testing.T) {
	eventLog, js := natstest.OpenJournal(t)
	tenant := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), tenant)
	if err := eventLog.Append(
		ctx, tenant, 0, natstest.Events("a", 1, journal.MaxAppend+1, ""),
	); !errors.Is(err, journal.ErrTooMany) {
		t.Errorf("%d events: %v, want ErrTooMany", journal.MaxAppend+1, err)
	}
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgs, config.Discard = 1, jetstream.DiscardNew
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := eventLog.Append(ctx, tenant, 0, natstest.Events("a", 1, 1, "")); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1, 2} { // a message by itself, and an atomic batch
		if err := eventLog.Append(
			ctx, tenant, 0, natstest.Events("b", 1, count, ""),
		); !errors.Is(err, journal.ErrRefused) {
			t.Errorf("%d events for a full stream: %v, want ErrRefused", count, err)
		}
	}
	if got := natstest.Load(t, eventLog, tenant, "b"); len(got) > 0 {
		t.Errorf("%d rejected events were stored", len(got))
	}
}

func TestAppend_UnacknowledgedOneEndsBeforeItsCall(t *testing.T) {
	t.Parallel()
	eventLog, js := natstest.OpenJournal(t)
	if err := js.DeleteStream(t.Context(), streams.Events); err != nil {
		t.Fatal(err)
	}
	silent, err := js.Conn().SubscribeSync("events.>") // receives publications and sends no acknowledgement
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), acme), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for count := 1; count <= 2; count++ {
		all.Go(func() {
			err := eventLog.Append(ctx, acme, 0, natstest.Events(fmt.Sprint("w", count), 1, count, ""))
			if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, journal.ErrConflict) ||
				ctx.Err() != nil {
				t.Errorf("%d events: %v, want a missing acknowledgement within the call's deadline", count, err)
			}
		})
	}
	all.Wait()
	if n, _, err := silent.Pending(); err != nil || n == 0 {
		t.Errorf("%d messages are published, %v", n, err)
	}
}

func TestAppend_EventSizeIsTheServersLimit(t *testing.T) {
	const most = 64 << 10
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: most}))
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for count := 1; count <= 2; count++ { // alone, and in a batch
		refused := 0
		for size := most - 2000; size <= most; size += 20 {
			list := natstest.Events(fmt.Sprintf("w-%d-%d", size, count), 1, count, "key")
			list[count-1].Data = []byte(`"` + strings.Repeat("x", size) + `"`)
			list[0].Command.IdempotencyKey = fmt.Sprint(size, "-", count)
			switch err := eventLog.Append(ctx, acme, 0, list); {
			case errors.Is(err, journal.ErrTooLarge):
				refused++
			case err != nil:
				t.Fatalf("%d bytes, %d events: %v", size, count, err)
			case refused > 0:
				t.Fatalf("%d bytes accepted, fewer were rejected", size)
			}
		}
		if refused == 0 {
			t.Errorf("%d events: no size was rejected", count)
		}
	}
}

// A publish without a connection is not sent: the client has no buffer for it.
func TestAppend_WithoutAConnectionIsRefused(t *testing.T) {
	s := natstest.Server(t, &server.Options{})
	js := natstest.Connect(t, s)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	lost := js.Conn().StatusChanged(nats.RECONNECTING)
	s.Shutdown()
	natstest.Await(t, lost, "the connection is lost")
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for count := 1; count <= 3; count++ {
		if err := eventLog.Append(
			ctx, acme, 0, natstest.Events("w", 1, count, ""),
		); !errors.Is(err, journal.ErrRefused) || !natsclient.Away(err) {
			t.Errorf("%d events: %v, want ErrRefused while NATS is unreachable", count, err)
		}
	}
}

// largeMessage returns an event's message of more than size bytes, which no check of Append has seen.
func largeMessage(tenant contextkit.TenantID, id string, size int) *nats.Msg {
	msg := nats.NewMsg(streams.EventSubject(tenant, "wallet", id))
	msg.Data = []byte(`"` + strings.Repeat("x", size) + `"`)
	return msg
}

// A server may take larger messages than roles read: EVENTS does not.
func TestEvents_LargerMessagesThanRolesReadAreRefused(t *testing.T) {
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: 4 * streams.MaxMessageBytes}))
	_, err := js.Publish(t.Context(), "events.acme.wallet.w", make([]byte, streams.MaxMessageBytes+1))
	if reason := natsclient.Refused(err); reason != natsclient.RefusedTooLarge {
		t.Errorf("%v (%v), want ErrTooLarge", err, reason)
	}
	if _, err := js.Publish(t.Context(), "events.acme.wallet.w", make([]byte, streams.MaxMessageBytes)); err != nil {
		t.Error(err)
	}
}

// The max_payload of a server is found too small after Append has compared sizes with it, as when
// the connection is restored to another server.
func TestAppend_MessageAboveMaxPayloadIsTooLarge(t *testing.T) {
	const most = 64 << 10
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: most}))
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	message := func(id string, size int) *nats.Msg { return largeMessage(acme, id, size) }
	for name, messages := range map[string][]*nats.Msg{
		"single":       {message("single", most)},
		"first of two": {message("first", most), message("first", 1)},
		"last of two":  {message("last", 1), message("last", most)},
		"second of six": {
			message("six", 1), message("six", most), message("six", 1), message("six", 1), message("six", 1),
			message("six", 1),
		},
	} {
		if err := eventLog.Publish(ctx, messages); !errors.Is(err, journal.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if last, err := eventLog.Last(ctx, acme); last != 0 || err != nil {
		t.Errorf("last sequence %d, %v; want none", last, err)
	}
	outcomes := eventLog.PublishGroup(ctx,
		[][]*nats.Msg{{message("a", 1)}, {message("b", most)}, {message("c", 1), message("c", 1)}})
	if outcomes[0] != nil || !errors.Is(outcomes[1], journal.ErrTooLarge) || outcomes[2] != nil {
		t.Errorf("%v, want ErrTooLarge for only the second of a group", outcomes)
	}
	if last, err := eventLog.Last(ctx, acme); last != 3 || err != nil {
		t.Errorf("last sequence %d, %v; want 3", last, err)
	}
	for _, keyBytes := range []int{1, 700, 2000} { // JetStream's headers count too
		for size := most - 4000; size <= most; size += 100 {
			list := natstest.Events(fmt.Sprintf("w-%d-%d", keyBytes, size), 1, 1, fmt.Sprintf("%0*d", keyBytes, size))
			list[0].Data = []byte(`"` + strings.Repeat("x", size) + `"`)
			if err := eventLog.Append(ctx, acme, 0, list); err != nil && !errors.Is(err, journal.ErrTooLarge) {
				t.Fatalf("%d bytes under a key of %d: %v", size, keyBytes, err)
			}
		}
	}
}

func TestAppend_EventAboveTheStreamsMaxMsgSizeIsTooLarge(t *testing.T) {
	eventLog, js := natstest.OpenJournal(t)
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgSize = 4 << 10
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for count := 1; count <= 3; count++ {
		list := natstest.Events(fmt.Sprint("w", count), 1, count, "")
		list[count-1].Data = []byte(`"` + strings.Repeat("x", 4<<10) + `"`)
		if err := eventLog.Append(ctx, acme, 0, list); !errors.Is(err, journal.ErrTooLarge) {
			t.Errorf("%d events: %v, want ErrTooLarge", count, err)
		}
	}
	if last, err := eventLog.Last(ctx, acme); last != 0 || err != nil {
		t.Errorf("last sequence %d, %v; want none", last, err)
	}
}

func TestLoad_ReadsLongHistoriesCompletelyAndInOrder(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	eventLog, _ := natstest.OpenJournal(t)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	const total = 1300 // more than two direct gets
	var last uint64
	for version := 1; version <= total; version += 100 {
		batch := natstest.Events("long", version, 100, "")
		if err := eventLog.Append(ctx, acme, last, batch); err != nil {
			t.Fatal(err)
		}
		last = batch[99].Sequence
	}
	got := natstest.Load(t, eventLog, acme, "long")
	if len(got) != total || got[total-1].Version != total {
		t.Fatalf("%d events, want %d", len(got), total)
	}
	for _, most := range []int{1, 512, 513, total - 1, total + 1} {
		read := 0
		if err := eventLog.Load(ctx, acme, "wallet", "long", got[1].Sequence, most, func(e journal.Event) error {
			if read++; e.Version != int64(read+1) {
				t.Fatalf("event %d has version %d", read, e.Version)
			}
			return nil
		}); err != nil || read != min(most, total-1) {
			t.Errorf("limit of %d events: %d, %v", most, read, err)
		}
	}
	if none := natstest.Load(t, eventLog, acme, "other"); len(none) != 0 {
		t.Fatalf("unknown aggregate: %d events", len(none))
	}
}

func TestJournal_SurvivesItsServer(t *testing.T) {
	dir := t.TempDir()
	acme := natstest.Tenant(t, "acme")
	var epoch int64
	t.Run("first", func(t *testing.T) {
		journal, err := journal.Open(t.Context(), natstest.StartIn(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		epoch = journal.Epoch()
		if err := journal.Append(
			contextkit.TenantContext(t.Context(), acme), acme, 0, natstest.Events("w", 1, 2, "k"),
		); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("second", func(t *testing.T) {
		journal, err := journal.Open(t.Context(), natstest.StartIn(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		if got := natstest.Load(t, journal, acme, "w"); len(got) != 2 || journal.Epoch() != epoch {
			t.Fatalf("%d events, epoch %d; want 2 and %d", len(got), journal.Epoch(), epoch)
		}
	})
}

func TestRead_EndsWhenTheConnectionIsLost(t *testing.T) {
	t.Parallel()
	eventLog, js := natstest.OpenJournal(t)
	acme := natstest.Tenant(t, "acme")
	// Longer than the test may take: a read that waits for its deadline fails the test.
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), acme), time.Hour)
	defer cancel()
	stored, cuts := 2000, int64(40)
	if testing.Short() {
		cuts = 8
	}
	for version := 1; version <= stored; version += 100 {
		last := uint64(version - 1)
		if err := eventLog.Append(ctx, acme, last, natstest.Events("w", version, 100, "")); err != nil {
			t.Fatal(err)
		}
	}
	var readers sync.WaitGroup
	var cut atomic.Int64
	done := make(chan struct{})
	for range 8 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				read := 0
				err := eventLog.Load(ctx, acme, "wallet", "w", 1, 0, func(journal.Event) error { read++; return nil })
				switch {
				case errors.Is(err, context.Canceled):
					t.Errorf("interrupted read: %v, want an error other than the caller's cancellation", err)
				case err != nil:
					cut.Add(1)
				case read != stored:
					t.Errorf("incomplete read without an error: %d of %d events", read, stored)
				}
			}
		})
	}
	connected := js.Conn().StatusChanged(nats.CONNECTED)
	defer js.Conn().RemoveStatusListener(connected)
	for cut.Load() < cuts {
		if err := js.Conn().ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		natstest.Await(t, connected, "the client reconnects")
		if read := 0; eventLog.Load(
			ctx, acme, "wallet", "w", 1, 0, func(journal.Event) error { read++; return nil },
		) == nil && read != stored {
			t.Errorf("incomplete read without an error: %d of %d events", read, stored)
		}
	}
	close(done)
	readers.Wait()
}
