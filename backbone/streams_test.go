package backbone_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream of an earlier version is brought up to date with what it holds; flags that
// JetStream never takes back stay set.
func TestEnsureStreams_UpgradesTheAuditStream(t *testing.T) {
	js := backbonetest.Start(t)
	if err := js.DeleteStream(t.Context(), backbone.StreamAudit); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: backbone.StreamAudit, Subjects: []string{"audit.*"}, AllowDirect: true, DenyDelete: true, DenyPurge: true}); err != nil {
		t.Fatal(err)
	}
	publish := func(subject, procedure string) {
		t.Helper()
		data, err := json.Marshal(backbone.AuditRecord{Procedure: procedure})
		if err == nil {
			_, err = js.Publish(t.Context(), subject, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("audit.acme", "old")
	publish("audit.globex", "another's")
	for range 2 { // it may be called again
		if err := backbone.EnsureStreams(t.Context(), js, 1); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(t.Context(), backbone.StreamAudit)
	if err != nil {
		t.Fatal(err)
	}
	if config := stream.CachedInfo().Config; !config.DenyDelete || !config.DenyPurge || config.MaxMsgsPerSubject <= 0 || config.MaxMsgSize <= 0 || config.MaxBytes > 0 {
		t.Errorf("%+v: want the flags and bounds per subject without a reservation", config)
	}
	for _, class := range []backbone.AuditClass{backbone.AuditOperator, backbone.AuditRead, backbone.AuditTenant, backbone.AuditDenied} {
		publish(backbone.AuditSubject("acme", class), string(class))
	}
	var found []string
	next, err := backbone.AuditRecords(t.Context(), js, "acme", 0, func(record backbone.AuditRecord) bool {
		found = append(found, record.Procedure)
		return true
	})
	if want := []string{"denied", "tenant", "read", "operator", "old"}; err != nil || next != 0 || !slices.Equal(found, want) {
		t.Errorf("%v, %d, %v, want %v", found, next, err, want)
	}
}

// narrow updates a stream as a process of an earlier version does when it starts: it knows
// fewer subjects.
func narrow(t *testing.T, js jetstream.JetStream, name string, subjects ...string) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Subjects, config.MaxMsgsPerSubject = subjects, -1
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreStream_GivesBackWhatAnEarlierVersionTook(t *testing.T) {
	js := backbonetest.Start(t)
	narrow(t, js, backbone.StreamAudit, "audit.*")
	for _, want := range []bool{true, false} {
		restored, err := backbone.RestoreStream(t.Context(), js, backbone.StreamAudit)
		if err != nil || restored != want {
			t.Fatalf("%v, %v, want %v", restored, err, want)
		}
		if _, err := js.Publish(t.Context(), backbone.AuditSubject("acme", backbone.AuditDenied), nil); err != nil {
			t.Error(err)
		}
	}
	stream, err := js.Stream(t.Context(), backbone.StreamAudit)
	if err != nil || stream.CachedInfo().Config.MaxMsgsPerSubject <= 0 {
		t.Errorf("%+v, %v: want the bound of this version", stream.CachedInfo().Config, err)
	}
	if _, err := backbone.RestoreStream(t.Context(), js, "NONE"); err == nil {
		t.Error("a stream that does not exist is restored")
	}
}

// Subjects that a later version has added stay when a process of this one starts.
func TestEnsureStreams_TakesNoSubjects(t *testing.T) {
	js := backbonetest.Start(t)
	narrow(t, js, backbone.StreamAudit, "audit.*", "audit.*.*", "audit.*.*.*")
	if err := backbone.EnsureStreams(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "audit.acme.denied.later", nil); err != nil {
		t.Error(err)
	}
}

// Many records of one class do not hide those of another, whichever page they are on.
func TestAuditRecords_PagesHoldAllClasses(t *testing.T) {
	js := backbonetest.Start(t)
	const denials = 2300
	for i := range denials {
		class := backbone.AuditDenied
		if i%100 == 0 {
			class = backbone.AuditOperator
		}
		data, err := json.Marshal(backbone.AuditRecord{Procedure: fmt.Sprint(i)})
		if err == nil {
			_, err = js.PublishAsync(backbone.AuditSubject("acme", class), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	want := denials - 1
	for before, first := uint64(0), true; first || before != 0; first = false {
		page := 0
		next, err := backbone.AuditRecords(t.Context(), js, "acme", before, func(record backbone.AuditRecord) bool {
			if page == 333 {
				return false
			}
			page++
			if record.Procedure != fmt.Sprint(want) {
				t.Fatalf("record %s, want %d", record.Procedure, want)
			}
			want--
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		before = next
	}
	if want != -1 {
		t.Errorf("the records from %d down are missing", want)
	}
}
