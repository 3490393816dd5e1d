package setup_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// A stream of an earlier version is updated without loss of its messages. Flags that JetStream cannot reset stay set.
func TestEnsureStreams_UpgradesTheAuditStream(t *testing.T) {
	js := natstest.Start(t)
	if err := js.DeleteStream(t.Context(), streams.Audit); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:        streams.Audit,
		Subjects:    []string{"audit.*"},
		AllowDirect: true,
		DenyDelete:  true,
		DenyPurge:   true,
	}); err != nil {
		t.Fatal(err)
	}
	publish := func(subject, procedure string) {
		t.Helper()
		data, err := json.Marshal(auditlog.Record{Procedure: procedure})
		if err == nil {
			_, err = js.Publish(t.Context(), subject, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("audit.acme", "old")
	publish("audit.globex", "foreign")
	for range 2 { // Ensure is idempotent
		if err := setup.Ensure(t.Context(), js, 1); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	if config := stream.CachedInfo().Config; !config.DenyDelete || !config.DenyPurge || config.MaxMsgsPerSubject <= 0 ||
		config.MaxMsgSize <= 0 || config.MaxBytes > 0 {
		t.Errorf("AUDIT %+v: want its flags, bounds per subject and no reservation", config)
	}
	for _, class := range []auditlog.Class{
		auditlog.ClassOperator, auditlog.ClassRead, auditlog.ClassTenant, auditlog.ClassDenied,
	} {
		publish(auditlog.Subject("acme", class), string(class))
	}
	var found []string
	next, err := auditlog.Read(t.Context(), js, "acme", 0, func(record auditlog.Record, _ time.Time) bool {
		found = append(found, record.Procedure)
		return true
	})
	if want := []string{"denied", "tenant", "read", "operator", "old"}; err != nil || next != 0 ||
		!slices.Equal(found, want) {
		t.Errorf("records %v, next %d (%v), want %v", found, next, err, want)
	}
}

func TestRestoreStream_RestoresSubjectsThatAnEarlierVersionRemoved(t *testing.T) {
	js := natstest.Start(t)
	natstest.Narrow(t, js, streams.Audit, "audit.*")
	for _, want := range []bool{true, false} {
		restored, err := streams.Restore(t.Context(), js, streams.Audit)
		if err != nil || restored != want {
			t.Fatalf("Restore: %v (%v), want %v", restored, err, want)
		}
		if _, err := js.Publish(t.Context(), auditlog.Subject("acme", auditlog.ClassDenied), nil); err != nil {
			t.Error(err)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Audit)
	if err != nil || stream.CachedInfo().Config.MaxMsgsPerSubject <= 0 {
		t.Errorf("AUDIT %+v (%v): want this version's bound of messages per subject", stream.CachedInfo().Config, err)
	}
	if _, err := streams.Restore(t.Context(), js, "NONE"); err == nil {
		t.Error("Restore accepts a stream that does not exist")
	}
}

// Subjects that a later version has added stay when a process of this version starts.
func TestEnsureStreams_RemovesNoSubjects(t *testing.T) {
	js := natstest.Start(t)
	natstest.Narrow(t, js, streams.Audit, "audit.*", "audit.*.*", "audit.*.*.*")
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "audit.acme.denied.later", nil); err != nil {
		t.Error(err)
	}
}

// Streams of an earlier version, which reserved more storage than there is, are updated on a server that has no room
// for the reservation.
func TestEnsureStreams_RemovesReservations(t *testing.T) {
	for name, room := range map[string]int64{"room": 4 << 30, "no room": 700 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := natstest.Server(t, &server.Options{StoreDir: dir, JetStreamMaxStore: 4 << 30})
			conn, err := natsclient.Connect(s.ClientURL(), t.Name())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			js, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(
				t.Context(),
				jetstream.StreamConfig{Name: streams.Audit, Subjects: []string{"audit.*"}, AllowDirect: true},
			); err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(
				t.Context(),
				jetstream.StreamConfig{Name: streams.Timeline, Subjects: []string{"timeline.*.*"}, MaxBytes: 1 << 30},
			); err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(t.Context(), "audit.acme", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			s.Shutdown()
			s.WaitForShutdown()

			js = natstest.Connect(t, natstest.Server(t, &server.Options{StoreDir: dir, JetStreamMaxStore: room}))
			streamList, count := js.ListStreams(t.Context()), 0
			for info := range streamList.Info() {
				count++
				if info.Config.MaxBytes > 0 {
					t.Errorf("%s reserves %d bytes", info.Config.Name, info.Config.MaxBytes)
				}
				if info.Config.Name == streams.Audit && info.State.Msgs != 1 {
					t.Errorf("%s has %d messages, want the one that it had", info.Config.Name, info.State.Msgs)
				}
			}
			if streamList.Err() != nil || count < 15 {
				t.Errorf("%d streams (%v), want all", count, streamList.Err())
			}
		})
	}
}

// An earlier version also reserved storage for buckets.
func TestEnsureStreams_RemovesReservationsOfBuckets(t *testing.T) {
	js := natstest.Start(t)
	stream, err := js.Stream(t.Context(), "KV_"+streams.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxBytes, config.Metadata = 1<<20, nil
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(t.Context()); err != nil || info.Config.MaxBytes > 0 {
		t.Errorf("bucket %+v (%v): want no reservation", info, err)
	}
}

// A role starts although TIMELINE cannot be created, and creates it later.
func TestEnsureStreams_RolesStartWithoutTimeline(t *testing.T) {
	js := natstest.Start(t)
	if err := js.DeleteStream(t.Context(), streams.Timeline); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(
		t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"timeline.>"}},
	); err != nil {
		t.Fatal(err)
	}
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatalf("Ensure without TIMELINE: %v, want a start", err)
	}
	if err := js.DeleteStream(t.Context(), "OTHER"); err != nil {
		t.Fatal(err)
	}
	if made, err := streams.Restore(t.Context(), js, streams.Timeline); !made || err != nil {
		t.Errorf("Restore: %v (%v), want TIMELINE created", made, err)
	}
	if _, err := js.Publish(t.Context(), "timeline.acme.1", []byte("{}")); err != nil {
		t.Error(err)
	}
}
