package usage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/usage"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// often is how often counts are shared in tests.
const often = 20 * time.Millisecond

// run opens a meter and runs it. stop ends it and returns once it has shared the rest.
func run(t *testing.T, js jetstream.JetStream, config usage.Config) (meter *usage.Meter, stop func()) {
	t.Helper()
	if config.Flush == 0 {
		config.Flush = often
	}
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if meter, err = usage.Open(t.Context(), js, journal, config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- meter.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	if config.Flush == often {
		counted(t, js, journal.Epoch())
	}
	return meter, stop
}

// counted waits until a node has counted the journal: until then, counts that are not of the journal's events are
// replaced.
func counted(t *testing.T, js jetstream.JetStream, epoch int64) {
	t.Helper()
	type count struct {
		Epoch int64     `json:"epoch"`
		Done  time.Time `json:"done"`
	}
	bucket, err := kv.Open[count](t.Context(), js, streams.BucketUsage)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the journal is not counted", func() bool {
		entry, err := bucket.Get(t.Context(), "count")
		return err == nil && entry.Value.Epoch == epoch && !entry.Value.Done.IsZero()
	})
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal(what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestMeter_NodesShareTheirCounts(t *testing.T) {
	js := natstest.Start(t)
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	a, _ := run(t, js, usage.Config{})
	b, _ := run(t, js, usage.Config{})
	for range 100 {
		a.Add(acme, usage.Counts{
			Events:     2,
			Bytes:      10,
			Aggregates: 1,
			Keys:       1,
		})
		b.Add(acme, usage.Counts{Events: 1, Bytes: 5})
		b.Add(globex, usage.Counts{Events: 7})
	}
	want := usage.Counts{
		Events:     300,
		Bytes:      1500,
		Aggregates: 100,
		Keys:       100,
	}
	for name, m := range map[string]*usage.Meter{"a": a, "b": b} {
		eventually(t, name+" does not know all",
			func() bool { return m.Use(acme) == want && m.Use(globex).Events == 700 })
	}
	eventually(t, "the records lack events", func() bool {
		all, err := usage.Read(t.Context(), js)
		return err == nil && all["acme"] == want && all["globex"].Events == 700
	})
}

func TestMeter_CountsAreThereAfterARestart(t *testing.T) {
	js := natstest.Start(t)
	acme := natstest.Tenant(t, "acme")
	m, stop := run(t, js, usage.Config{Flush: time.Hour}) // only its end shares them
	m.Add(acme, usage.Counts{
		Events:     5,
		Bytes:      50,
		Aggregates: 1,
		Keys:       2,
	})
	stop()
	again, _ := run(t, js, usage.Config{Flush: time.Hour})
	if use := again.Use(acme); use != (usage.Counts{
		Events:     5,
		Bytes:      50,
		Aggregates: 1,
		Keys:       2,
	}) {
		t.Errorf("usage after a restart: %+v", use)
	}
}

func TestMeter_ANodeThatEndsDuringAnOutageHasNotFailed(t *testing.T) {
	js := natstest.Start(t)
	meter, stop := run(t, js, usage.Config{Flush: time.Hour})
	meter.Add(natstest.Tenant(t, "acme"), usage.Counts{Events: 1})
	js.Conn().Close()
	stop() // fails the test if Run returns an error
}

func TestMeter_RefusesWhatExceedsAQuota(t *testing.T) {
	js := natstest.Start(t)
	acme, globex := natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")
	m, _ := run(t, js, usage.Config{Quota: fleet.StorageQuota{
		Events:     100,
		Aggregates: 10,
		Bytes:      10_000,
		Keys:       50,
	}, Flush: time.Hour})
	for name, of := range map[string]struct {
		used, add usage.Counts
		platform  bool
		quota     string
	}{
		"room for all":           {usage.Counts{Events: 90}, usage.Counts{Events: 10}, false, ""},
		"events":                 {usage.Counts{Events: 90}, usage.Counts{Events: 11}, false, "events"},
		"the platform's reserve": {usage.Counts{Events: 100}, usage.Counts{Events: 5}, true, ""},
		"beyond the reserve":     {usage.Counts{Events: 100}, usage.Counts{Events: 6}, true, "events"},
		"aggregates": {
			usage.Counts{Aggregates: 10}, usage.Counts{Events: 1, Aggregates: 1}, false, "aggregates",
		},
		"no aggregate more":         {usage.Counts{Aggregates: 12}, usage.Counts{Events: 1}, false, ""},
		"bytes":                     {usage.Counts{Bytes: 9000}, usage.Counts{Events: 1, Bytes: 1001}, false, "bytes"},
		"keys":                      {usage.Counts{Keys: 50}, usage.Counts{Events: 1, Keys: 1}, false, "keys"},
		"without a key there is no": {usage.Counts{Keys: 50}, usage.Counts{Events: 1}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			id := natstest.Tenant(
				t,
				strings.ReplaceAll("t-"+strings.ToLower(strings.NewReplacer(" ", "-", "'", "").Replace(name)), "--",
					"-"),
			)
			m.Add(id, of.used)
			_, err := m.Admit(id, of.add, of.platform)
			var quota *usage.QuotaError
			switch {
			case of.quota == "" && err != nil:
				t.Errorf("rejected: %v", err)
			case of.quota != "" && (!errors.As(err, &quota) || quota.Quota != of.quota || quota.Tenant != id):
				t.Errorf("got %v", err)
			}
		})
	}
	m.Add(acme, usage.Counts{Events: 1000})
	if _, err := m.Admit(globex, usage.Counts{Events: 1}, false); err != nil {
		t.Errorf("another tenant is refused: %v", err)
	}
	if got := testutil.CollectAndCount(m, "headgate_tenant_quota_used_ratio"); got == 0 || got > 10 {
		t.Errorf("%d tenants have a metric, want 1 to 10", got)
	}
}

func TestMeter_ATenantsOwnQuotaCounts(t *testing.T) {
	js := natstest.Start(t)
	acme := natstest.Tenant(t, "acme")
	var log strings.Builder
	m, stop := run(t, js, usage.Config{
		Quota: fleet.StorageQuota{Events: 10, Bytes: 100},
		Log:   zerolog.New(zerolog.SyncWriter(&log)),
	})
	m.Add(acme, usage.Counts{Events: 10})
	if _, err := m.Admit(acme, usage.Counts{Events: 1}, false); err == nil {
		t.Error("the quota of all does not count")
	}
	tenants, err := kv.Open[fleet.Tenant](t.Context(), js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.PlatformContext(t.Context())
	revision, err := tenants.Put(ctx, "acme", fleet.Tenant{Storage: &fleet.StorageQuota{Events: 20}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "its own quota does not count", func() bool {
		held, err := m.Admit(acme, usage.Counts{Events: 10}, false)
		held.Release()
		return err == nil
	})
	var quota *usage.QuotaError
	if _, err := m.Admit(acme, usage.Counts{Events: 1, Bytes: 101}, false); !errors.As(err, &quota) ||
		quota.Quota != "bytes" || quota.Limit != 100 {
		t.Errorf("default for a field missing in the tenant's quota: %v", err)
	}
	if _, err := tenants.Put(ctx, "acme", fleet.Tenant{}, revision); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the quota of all does not count again", func() bool {
		held, err := m.Admit(acme, usage.Counts{Events: 1}, false)
		held.Release()
		return err != nil
	})
	m.Add(acme, usage.Counts{Bytes: 85, Events: 1})
	eventually(t, "the quota is not shared", func() bool {
		all, err := usage.Read(t.Context(), js)
		return err == nil && all["acme"].Bytes == 85
	})
	stop()
	if text := log.String(); strings.Count(text, `"quota":"bytes"`) != 1 || !strings.Contains(text, `"tenant":"acme"`) {
		t.Errorf("the warnings are %s", text)
	}
}

// TestMeter_AJournalThatWasNeverCountedIsCounted also appends while it is counted.
func TestMeter_AJournalThatWasNeverCountedIsCounted(t *testing.T) {
	js := natstest.Start(t)
	acme := natstest.Tenant(t, "acme")
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.TenantContext(t.Context(), acme)
	var bytes int64
	add := func(aggregate int) usage.Counts {
		events := make([]journal.Event, 3)
		for n := range events {
			events[n] = journal.Event{
				ID:            contextkit.NewID(),
				Type:          "noted",
				AggregateType: "note",
				AggregateID:   fmt.Sprint("n", aggregate),
				Version:       int64(n + 1),
				Time:          time.Now(),
				Data:          []byte(`{}`),
				Command:       journal.CommandRef{IdempotencyKey: fmt.Sprint("k", aggregate), Fingerprint: "f"},
			}
		}
		if err := eventLog.Append(ctx, acme, 0, events); err != nil {
			t.Fatal(err)
		}
		size := 0
		for n := range events {
			size += events[n].Size
		}
		return usage.Counts{
			Events:     3,
			Bytes:      int64(size),
			Aggregates: 1,
			Keys:       1,
		}
	}
	for n := range 100 {
		bytes += add(n).Bytes
	}
	m, stop := run(t, js, usage.Config{Flush: 100 * time.Millisecond})
	eventually(t, "the journal is not counted", func() bool { return m.Use(acme).Events == 300 })
	use := m.Use(acme)
	if use.Events != 300 || use.Aggregates != 100 || use.Keys != 100 {
		t.Errorf("counted %+v, want 300 events, 100 aggregates and keys", use)
	}
	if ratio := float64(use.Bytes) / float64(bytes); ratio < 0.99 || ratio > 1.01 {
		t.Errorf("counted %d bytes, %d were appended", use.Bytes, bytes)
	}
	m.Add(acme, add(100))
	eventually(t, "later events are not added", func() bool {
		all, err := usage.Read(t.Context(), js)
		return err == nil && all["acme"].Events == 303
	})
	stop()
	// Another node counts it no second time.
	again, _ := run(t, js, usage.Config{Flush: 50 * time.Millisecond})
	again.Add(acme, usage.Counts{Events: 1})
	eventually(t, "the next node does not share", func() bool {
		all, err := usage.Read(t.Context(), js)
		return err == nil && all["acme"].Events == 304
	})
}

func TestMeter_ConcurrentCommandsDoNotExceedTheQuotaTogether(t *testing.T) {
	js := natstest.Start(t)
	acme := natstest.Tenant(t, "acme")
	m, _ := run(t, js, usage.Config{Quota: fleet.StorageQuota{Events: 10}})
	var held []usage.Held
	for range 5 {
		part, err := m.Admit(acme, usage.Counts{Events: 2}, false)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, part)
	}
	if _, err := m.Admit(acme, usage.Counts{Events: 1}, false); err == nil {
		t.Fatal("a command is admitted over the reservations of others")
	}
	held[0].Release() // it was refused
	m.Add(acme, usage.Counts{Events: 2})
	held[1].Release() // it was appended
	part, err := m.Admit(acme, usage.Counts{Events: 2}, false)
	if err != nil {
		t.Fatalf("released reservation is not free: %v", err)
	}
	if _, err := m.Admit(acme, usage.Counts{Events: 1}, false); err == nil {
		t.Error("appended usage is free, want it counted")
	}
	for _, part := range append(held[2:], part) {
		part.Release()
	}
	if use := m.Use(acme); use.Events != 2 {
		t.Errorf("%d events are in use, want 2", use.Events)
	}
}
