package backbone_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { natstest.Main(m) }

func openJournal(t *testing.T) (*backbone.Journal, jetstream.JetStream) {
	t.Helper()
	js := natstest.Start(t)
	journal, err := backbone.OpenJournal(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	return journal, js
}

// events returns n events of wallet id, the first of them with version first.
func events(id string, first, n int, key string) []backbone.Event {
	list := make([]backbone.Event, n)
	for i := range list {
		list[i] = backbone.Event{
			ID: contextkit.NewID(), Type: "deposited", AggregateType: "wallet", AggregateID: id,
			Version: int64(first + i), Time: time.Now(), Data: fmt.Appendf(nil, `{"amount":%d}`, first+i),
			Command: backbone.CommandRef{IdempotencyKey: key, Fingerprint: "f"},
		}
	}
	return list
}

func load(t *testing.T, journal *backbone.Journal, tenant contextkit.TenantID, id string) []backbone.Event {
	t.Helper()
	var got []backbone.Event
	err := journal.Load(t.Context(), tenant, "wallet", id, 1, 0, func(e backbone.Event) error {
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAppendIsAllOrNothingAndCheckedAgainstTheLastEvent(t *testing.T) {
	journal, _ := openJournal(t)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)

	first := events("w", 1, 3, "key-1")
	if err := journal.Append(ctx, acme, 0, first); err != nil {
		t.Fatal(err)
	}
	if first[0].Sequence != 1 || first[2].Sequence != 3 {
		t.Fatalf("sequences %d..%d, want 1..3", first[0].Sequence, first[2].Sequence)
	}
	refused := []struct {
		name string
		last uint64
		list []backbone.Event
		want error
	}{
		{"a batch after the wrong event", 0, events("w", 1, 2, ""), backbone.ErrConflict},
		{"one event after the wrong event", 2, events("w", 3, 1, ""), backbone.ErrConflict},
		{"a batch under a used key", 3, events("w", 4, 2, "key-1"), backbone.ErrDuplicate},
		{"one event under a used key", 3, events("w", 4, 1, "key-1"), backbone.ErrDuplicate},
	}
	for _, tc := range refused {
		t.Run(tc.name, func(t *testing.T) {
			if err := journal.Append(ctx, acme, tc.last, tc.list); !errors.Is(err, tc.want) {
				t.Fatalf("err = %v, want %v", err, tc.want)
			}
			if got := load(t, journal, acme, "w"); len(got) != 3 {
				t.Fatalf("%d events stand in the journal, want 3", len(got))
			}
		})
	}
	if err := journal.Append(ctx, acme, 3, events("w", 4, 1, "key-2")); err != nil {
		t.Fatal(err)
	}
	got := load(t, journal, acme, "w")
	for i, event := range got {
		if event.Version != int64(i+1) || string(event.Data) != fmt.Sprintf(`{"amount":%d}`, i+1) || event.Context.TenantID != acme {
			t.Errorf("event %d is %+v", i, event)
		}
	}
	t.Run("an event under another tenant's context is refused", func(t *testing.T) {
		if err := journal.Append(ctx, natstest.Tenant(t, "globex"), 0, events("w", 1, 1, "")); err == nil {
			t.Fatal("it was appended")
		}
	})
	t.Run("an event without context is refused", func(t *testing.T) {
		if err := journal.Append(t.Context(), acme, 4, events("w", 5, 1, "")); !errors.Is(err, contextkit.ErrNoContext) {
			t.Fatalf("err = %v", err)
		}
	})
	t.Run("an event that fits no message is refused", func(t *testing.T) {
		huge := events("w", 5, 1, "")
		huge[0].Data = []byte(`"` + strings.Repeat("x", backbone.MaxMessageBytes) + `"`)
		if err := journal.Append(ctx, acme, 4, huge); !errors.Is(err, backbone.ErrTooLarge) {
			t.Fatalf("err = %v", err)
		}
	})
}

func TestAppend_RefusalByJetStreamIsDefinite(t *testing.T) {
	journal, js := openJournal(t)
	tenant := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), tenant)
	if err := journal.Append(ctx, tenant, 0, events("a", 1, backbone.MaxAppend+1, "")); !errors.Is(err, backbone.ErrTooMany) {
		t.Errorf("%d events: %v, want ErrTooMany", backbone.MaxAppend+1, err)
	}
	stream, err := js.Stream(t.Context(), backbone.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgs, config.Discard = 1, jetstream.DiscardNew
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := journal.Append(ctx, tenant, 0, events("a", 1, 1, "")); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1, 2} { // a message by itself, and an atomic batch
		if err := journal.Append(ctx, tenant, 0, events("b", 1, count, "")); !errors.Is(err, backbone.ErrRefused) {
			t.Errorf("%d events for a full stream: %v, want ErrRefused", count, err)
		}
	}
	if got := load(t, journal, tenant, "b"); len(got) > 0 {
		t.Errorf("%d refused events were stored", len(got))
	}
}

func TestAnAppendThatNobodyAcknowledgesEndsBeforeItsCall(t *testing.T) {
	t.Parallel()
	journal, js := openJournal(t)
	if err := js.DeleteStream(t.Context(), backbone.StreamEvents); err != nil {
		t.Fatal(err)
	}
	silent, err := js.Conn().SubscribeSync("events.>") // takes what is published, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), acme), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for count := 1; count <= 2; count++ {
		all.Go(func() {
			err := journal.Append(ctx, acme, 0, events(fmt.Sprint("w", count), 1, count, ""))
			if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, backbone.ErrConflict) || ctx.Err() != nil {
				t.Errorf("%d events: %v, want that there is no acknowledgement, within the call's time", count, err)
			}
		})
	}
	all.Wait()
	if n, _, err := silent.Pending(); err != nil || n == 0 {
		t.Errorf("%d messages are published, %v", n, err)
	}
}

func TestAnEventIsAsLargeAsItsServerTakes(t *testing.T) {
	const most = 64 << 10
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: most}))
	journal, err := backbone.OpenJournal(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for count := 1; count <= 2; count++ { // alone, and in a batch
		refused := 0
		for size := most - 2000; size <= most; size += 20 {
			list := events(fmt.Sprintf("w-%d-%d", size, count), 1, count, "key")
			list[count-1].Data = []byte(`"` + strings.Repeat("x", size) + `"`)
			list[0].Command.IdempotencyKey = fmt.Sprint(size, "-", count)
			switch err := journal.Append(ctx, acme, 0, list); {
			case errors.Is(err, backbone.ErrTooLarge):
				refused++
			case err != nil:
				t.Fatalf("%d bytes, %d events: %v", size, count, err)
			case refused > 0:
				t.Fatalf("%d bytes are taken, less were refused", size)
			}
		}
		if refused == 0 {
			t.Errorf("%d events: nothing is too large", count)
		}
	}
}

// A publish without a connection is not sent: the client has no buffer for it.
func TestAppend_WithoutAConnectionIsRefused(t *testing.T) {
	s := natstest.Server(t, &server.Options{})
	js := natstest.Connect(t, s)
	journal, err := backbone.OpenJournal(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	lost := js.Conn().StatusChanged(nats.RECONNECTING)
	s.Shutdown()
	natstest.Await(t, lost, "the connection is lost")
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	for count := 1; count <= 3; count++ {
		if err := journal.Append(ctx, acme, 0, events("w", 1, count, "")); !errors.Is(err, backbone.ErrRefused) || !backbone.Away(err) {
			t.Errorf("%d events: %v, want ErrRefused since NATS is away", count, err)
		}
	}
}

// largeMessage returns an event's message of more than size bytes, which no check of Append has seen.
func largeMessage(tenant contextkit.TenantID, id string, size int) *nats.Msg {
	msg := nats.NewMsg(backbone.EventSubject(tenant, "wallet", id))
	msg.Data = []byte(`"` + strings.Repeat("x", size) + `"`)
	return msg
}

// A server may take larger messages than roles read: EVENTS does not.
func TestEvents_LargerMessagesThanRolesReadAreRefused(t *testing.T) {
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: 4 * backbone.MaxMessageBytes}))
	_, err := js.Publish(t.Context(), "events.acme.wallet.w", make([]byte, backbone.MaxMessageBytes+1))
	if reason := backbone.Refused(err); reason != backbone.RefusedTooLarge {
		t.Errorf("%v (%v), want that it is too large", err, reason)
	}
	if _, err := js.Publish(t.Context(), "events.acme.wallet.w", make([]byte, backbone.MaxMessageBytes)); err != nil {
		t.Error(err)
	}
}

// The max_payload of a server is found too small after Append has compared sizes with it, as when
// the connection is restored to another server.
func TestAppend_MessageAboveMaxPayloadIsTooLarge(t *testing.T) {
	const most = 64 << 10
	js := natstest.Connect(t, natstest.Server(t, &server.Options{MaxPayload: most}))
	journal, err := backbone.OpenJournal(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	message := func(id string, size int) *nats.Msg { return largeMessage(acme, id, size) }
	for name, messages := range map[string][]*nats.Msg{
		"single":        {message("single", most)},
		"first of two":  {message("first", most), message("first", 1)},
		"last of two":   {message("last", 1), message("last", most)},
		"second of six": {message("six", 1), message("six", most), message("six", 1), message("six", 1), message("six", 1), message("six", 1)},
	} {
		if err := journal.Publish(ctx, messages); !errors.Is(err, backbone.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if last, err := journal.Last(ctx, acme); last != 0 || err != nil {
		t.Errorf("the last sequence is %d, %v: want none", last, err)
	}
	outcomes := journal.PublishGroup(ctx, [][]*nats.Msg{{message("a", 1)}, {message("b", most)}, {message("c", 1), message("c", 1)}})
	if outcomes[0] != nil || !errors.Is(outcomes[1], backbone.ErrTooLarge) || outcomes[2] != nil {
		t.Errorf("%v: want that only the second of a group is too large", outcomes)
	}
	if last, err := journal.Last(ctx, acme); last != 3 || err != nil {
		t.Errorf("the last sequence is %d, %v: want 3", last, err)
	}
	for _, keyBytes := range []int{1, 700, 2000} { // JetStream's headers count too
		for size := most - 4000; size <= most; size += 100 {
			list := events(fmt.Sprintf("w-%d-%d", keyBytes, size), 1, 1, fmt.Sprintf("%0*d", keyBytes, size))
			list[0].Data = []byte(`"` + strings.Repeat("x", size) + `"`)
			if err := journal.Append(ctx, acme, 0, list); err != nil && !errors.Is(err, backbone.ErrTooLarge) {
				t.Fatalf("%d bytes under a key of %d: %v", size, keyBytes, err)
			}
		}
	}
}

func TestAppend_EventAboveTheStreamsMaxMsgSizeIsTooLarge(t *testing.T) {
	journal, js := openJournal(t)
	stream, err := js.Stream(t.Context(), backbone.StreamEvents)
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
		list := events(fmt.Sprint("w", count), 1, count, "")
		list[count-1].Data = []byte(`"` + strings.Repeat("x", 4<<10) + `"`)
		if err := journal.Append(ctx, acme, 0, list); !errors.Is(err, backbone.ErrTooLarge) {
			t.Errorf("%d events: %v, want ErrTooLarge", count, err)
		}
	}
	if last, err := journal.Last(ctx, acme); last != 0 || err != nil {
		t.Errorf("the last sequence is %d, %v: want none", last, err)
	}
}

func TestLoadReadsLongHistoriesWholeAndInOrder(t *testing.T) {
	t.Parallel()
	journal, _ := openJournal(t)
	acme := natstest.Tenant(t, "acme")
	ctx := contextkit.TenantContext(t.Context(), acme)
	const total = 1300 // more than two direct gets
	var last uint64
	for version := 1; version <= total; version += 100 {
		batch := events("long", version, 100, "")
		if err := journal.Append(ctx, acme, last, batch); err != nil {
			t.Fatal(err)
		}
		last = batch[99].Sequence
	}
	got := load(t, journal, acme, "long")
	if len(got) != total || got[total-1].Version != total {
		t.Fatalf("%d events, want %d", len(got), total)
	}
	for _, most := range []int{1, 512, 513, total - 1, total + 1} {
		read := 0
		if err := journal.Load(ctx, acme, "wallet", "long", got[1].Sequence, most, func(e backbone.Event) error {
			if read++; e.Version != int64(read+1) {
				t.Fatalf("event %d has version %d", read, e.Version)
			}
			return nil
		}); err != nil || read != min(most, total-1) {
			t.Errorf("%d events at most: %d, %v", most, read, err)
		}
	}
	if none := load(t, journal, acme, "other"); len(none) != 0 {
		t.Fatalf("an unknown aggregate has %d events", len(none))
	}
}

func TestTheJournalOutlivesItsServer(t *testing.T) {
	dir := t.TempDir()
	acme := natstest.Tenant(t, "acme")
	var epoch int64
	t.Run("first", func(t *testing.T) {
		journal, err := backbone.OpenJournal(t.Context(), natstest.StartIn(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		epoch = journal.Epoch()
		if err := journal.Append(contextkit.TenantContext(t.Context(), acme), acme, 0, events("w", 1, 2, "k")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("second", func(t *testing.T) {
		journal, err := backbone.OpenJournal(t.Context(), natstest.StartIn(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		if got := load(t, journal, acme, "w"); len(got) != 2 || journal.Epoch() != epoch {
			t.Fatalf("%d events, epoch %d; want 2 and %d", len(got), journal.Epoch(), epoch)
		}
	})
}

func TestANodesSecretIsEveryNodesSecret(t *testing.T) {
	js := natstest.Start(t)
	first, err := backbone.SharedSecret(t.Context(), js, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	second, err := backbone.SharedSecret(t.Context(), js, "tokens")
	if err != nil || string(first) != string(second) || len(first) != 32 {
		t.Fatalf("%x and %x, %v", first, second, err)
	}
}

func TestReadsEndWhenTheConnectionIsLost(t *testing.T) {
	t.Parallel()
	journal, js := openJournal(t)
	acme := natstest.Tenant(t, "acme")
	// Longer than the test may take: whatever waits for its deadline is found.
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), acme), time.Hour)
	defer cancel()
	stored, cuts := 2000, int64(40)
	if testing.Short() {
		cuts = 8
	}
	for version := 1; version <= stored; version += 100 {
		last := uint64(version - 1)
		if err := journal.Append(ctx, acme, last, events("w", version, 100, "")); err != nil {
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
				err := journal.Load(ctx, acme, "wallet", "w", 1, 0, func(backbone.Event) error { read++; return nil })
				switch {
				case errors.Is(err, context.Canceled):
					t.Errorf("a read that was cut off is as if its caller had left: %v", err)
				case err != nil:
					cut.Add(1)
				case read != stored:
					t.Errorf("%d events are read as if they were all, of %d", read, stored)
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
		if read := 0; journal.Load(ctx, acme, "wallet", "w", 1, 0, func(backbone.Event) error { read++; return nil }) == nil && read != stored {
			t.Errorf("%d events are read as if they were all, of %d", read, stored)
		}
	}
	close(done)
	readers.Wait()
}
