package setup_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// configs returns the configurations of all streams, those of buckets included, by name.
func configs(t *testing.T, js jetstream.JetStream) map[string]jetstream.StreamConfig {
	t.Helper()
	all := map[string]jetstream.StreamConfig{}
	list := js.ListStreams(t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = info.Config
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	return all
}

// edit changes a stream's configuration as an operator does.
func edit(t *testing.T, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	config := configs(t, js)[name]
	change(&config)
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(name, ": ", err)
	}
}

func ensure(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
}

func TestFormats_EveryStreamAndBucketRecordsOne(t *testing.T) {
	js := natstest.Start(t)
	for name, config := range configs(t, js) {
		for _, key := range []string{"headgate.format", "headgate.floor", "headgate.writer", "headgate.limits"} {
			if config.Metadata[key] == "" {
				t.Errorf("%s has no %s", name, key)
			}
		}
	}
}

func TestFormats_NewerDataIsRejectedBeforeChanges(t *testing.T) {
	for name, what := range map[string]string{
		streams.Events: "stream EVENTS", "KV_tenants": "bucket tenants", streams.Timeline: "stream TIMELINE",
	} {
		js := natstest.Start(t)
		edit(t, js, name, func(c *jetstream.StreamConfig) {
			c.Metadata["headgate.format"], c.Metadata["headgate.floor"], c.Metadata["headgate.writer"] = "97", "95",
				"v9.7.0"
		})
		if err := js.DeleteStream(t.Context(), streams.Audit); err != nil {
			t.Fatal(err)
		}
		err := setup.Ensure(t.Context(), js, 1)
		if newer := new(format.NewerError); !errors.As(err, &newer) || natsclient.Away(err) {
			t.Fatalf("Ensure on newer data: %v, want a NewerError", err)
		}
		for _, want := range []string{what + " has format 97", "headgate v9.7.0", "knows format 95", "up to 1"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
		if _, err := js.Stream(t.Context(), streams.Audit); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("a stream was created although another was rejected: %v", err)
		}
	}
}

// A program whose format is older than the data's, and not below its floor, uses the data and
// changes neither record nor limits.
func TestFormats_OlderProgramLeavesNewerDefinitions(t *testing.T) {
	js := natstest.Start(t)
	edit(t, js, streams.Audit, func(c *jetstream.StreamConfig) {
		c.Metadata["headgate.format"], c.Description, c.MaxMsgsPerSubject = "9", "as of format 9", 7
		c.Subjects = append(c.Subjects, "audit.*.*.*")
	})
	want := configs(t, js)[streams.Audit]
	ensure(t, js)
	if got := configs(t, js)[streams.Audit]; got.Description != want.Description || got.MaxMsgsPerSubject != 7 ||
		got.Metadata["headgate.format"] != "9" || len(got.Subjects) != len(want.Subjects) {
		t.Errorf("AUDIT after the start of an older program: %+v, want %+v", got, want)
	}
}

func TestRaiseFormat_IsRecordedAndNeverLowered(t *testing.T) {
	js := natstest.Start(t)
	for _, to := range []format.Format{{Version: 3, Floor: 2}, {Version: 3, Floor: 2}} {
		if err := streams.RaiseFormat(t.Context(), js, "KV_runner", to); err != nil {
			t.Fatal(err)
		}
	}
	if got := configs(t, js)["KV_runner"].Metadata; got["headgate.format"] != "3" || got["headgate.floor"] != "2" {
		t.Errorf("metadata %v, want format 3 with floor 2", got)
	}
	newer := new(format.NewerError)
	if err := streams.RaiseFormat(
		t.Context(), js, "KV_runner", format.Format{Version: 1, Floor: 1},
	); !errors.As(err, &newer) {
		t.Errorf("lower format: %v, want a NewerError", err)
	}
}

func TestEnsureStreams_OperatorsLimitsAreRetained(t *testing.T) {
	js := natstest.Start(t)
	edit(t, js, streams.Audit, func(c *jetstream.StreamConfig) { c.MaxAge, c.MaxBytes = 24*time.Hour, 1<<20 })
	edit(t, js, "KV_workflows", func(c *jetstream.StreamConfig) { c.MaxAge = 365 * 24 * time.Hour })
	edit(t, js, streams.Events, func(c *jetstream.StreamConfig) { c.Duplicates = 10 * time.Minute })
	// A limit that a program has set, not an operator, follows the definition.
	edit(t, js, streams.Timeline, func(c *jetstream.StreamConfig) {
		c.MaxAge = time.Hour
		c.Metadata["headgate.limits"] = strings.Replace(c.Metadata["headgate.limits"], `"max_age":86400000000000`,
			`"max_age":3600000000000`, 1)
	})
	for range 2 {
		ensure(t, js)
		all := configs(t, js)
		if c := all[streams.Audit]; c.MaxAge != 24*time.Hour || c.MaxBytes != 1<<20 {
			t.Errorf("AUDIT: max age %v and %d bytes, want the operator's", c.MaxAge, c.MaxBytes)
		}
		if age := all["KV_workflows"].MaxAge; age != 365*24*time.Hour {
			t.Errorf("workflows: max age %v, want the operator's", age)
		}
		if window := all[streams.Events].Duplicates; window != 10*time.Minute {
			t.Errorf("EVENTS: deduplication window %v, want the operator's", window)
		}
		if age := all[streams.Timeline].MaxAge; age != 24*time.Hour {
			t.Errorf("TIMELINE: max age %v, want the definition's", age)
		}
	}
	lines, err := streams.RetainedLimits(t.Context(), js, 1)
	if err != nil || len(lines) != 4 ||
		!slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "AUDIT: max_age") }) {
		t.Errorf("retained limits %q (%v), want a line for each limit that an operator has set", lines, err)
	}
}

// An earlier version made a stream without a record of limits: a limit that is narrower than the definition's, or
// unlimited, is set to the definition's, and a wider one stays.
func TestEnsureStreams_UnrecordedLimitsAreNotShrunk(t *testing.T) {
	js := natstest.Start(t)
	edit(t, js, streams.Audit, func(c *jetstream.StreamConfig) {
		c.Metadata, c.MaxAge, c.MaxMsgsPerSubject, c.MaxMsgSize = nil, 400*24*time.Hour, -1, 10
	})
	ensure(t, js)
	if c := configs(t, js)[streams.Audit]; c.MaxAge != 400*24*time.Hour || c.MaxMsgsPerSubject <= 0 ||
		c.MaxMsgSize <= 10 {
		t.Errorf("AUDIT: %+v", c)
	}
}

func TestEnsureStreams_LowersNoFlag(t *testing.T) {
	js := natstest.Start(t)
	flags := func(c *jetstream.StreamConfig) map[string]*bool {
		all := map[string]*bool{
			"AllowMsgTTL": &c.AllowMsgTTL, "DenyDelete": &c.DenyDelete, "DenyPurge": &c.DenyPurge,
			"AllowDirect": &c.AllowDirect, "AllowAtomicPublish": &c.AllowAtomicPublish,
		}
		if c.AllowMsgSchedules { // NATS has no schedules where purges are denied
			delete(all, "DenyPurge")
		}
		if c.PersistMode == jetstream.AsyncPersistMode { // NATS has no atomic batches there
			delete(all, "AllowAtomicPublish")
		}
		return all
	}
	names := configs(t, js)
	for name := range names {
		edit(t, js, name, func(c *jetstream.StreamConfig) {
			for _, flag := range flags(c) {
				*flag = true
			}
		})
	}
	ensure(t, js)
	for name, config := range configs(t, js) {
		for flag, set := range flags(&config) {
			if !*set {
				t.Errorf("%s: %s is lowered", name, flag)
			}
		}
	}
}

// Buckets of earlier versions accept rollups, with which a user that may write one key removes all others.
// The set-up disables them; until then nodes start and report them.
func TestEnsureStreams_DisablesRollups(t *testing.T) {
	js := natstest.Start(t)
	bucket := streams.BucketStream(streams.BucketModels)
	edit(t, js, bucket, func(c *jetstream.StreamConfig) { c.AllowRollup = true })
	outdated, err := setup.Check(t.Context(), js, 1)
	if err != nil || len(outdated) != 1 || !strings.Contains(outdated[0], bucket+" accepts rollups") {
		t.Errorf("outdated: %q (%v), want that the bucket accepts rollups", outdated, err)
	}
	ensure(t, js)
	for name, config := range configs(t, js) {
		if config.AllowRollup && !config.AllowMsgSchedules {
			t.Errorf("%s accepts rollups", name)
		}
	}
}

// The last version without recorded formats starts on the streams of this version, and this version after it.
func TestEnsureStreams_EarlierAndThisVersionAlternate(t *testing.T) {
	js := natstest.Start(t)
	baseline := func() {
		t.Helper()
		const minute, day = time.Minute, 24 * time.Hour
		for _, config := range []jetstream.StreamConfig{
			{
				Name:               "EVENTS",
				Subjects:           []string{"events.>"},
				AllowAtomicPublish: true,
				AllowDirect:        true,
				Duplicates:         2 * minute,
				DenyDelete:         true,
				DenyPurge:          true,
			},
			{
				Name:              "AUDIT",
				Subjects:          []string{"audit.*", "audit.*.*"},
				MaxAge:            90 * day,
				AllowDirect:       true,
				MaxMsgsPerSubject: 50_000,
				MaxMsgSize:        6 << 10,
			},
			{
				Name:              "WORK",
				Subjects:          []string{"work.*.*.*", "later.*.*.*"},
				AllowMsgSchedules: true,
				AllowMsgTTL:       true,
				AllowDirect:       true,
				Retention:         jetstream.WorkQueuePolicy,
			},
			{Name: "DEADLETTERS", Subjects: []string{"deadletters.*"}, AllowDirect: true},
			{
				Name: "TIMELINE", Subjects: []string{"timeline.*.*", "timeline.*.*.*.*"}, AllowDirect: true,
				Discard: jetstream.DiscardOld,
				MaxAge:  day, MaxMsgsPerSubject: 512, MaxMsgSize: 5 << 10, PersistMode: jetstream.AsyncPersistMode,
			},
		} {
			stream, err := js.Stream(t.Context(), config.Name)
			if err != nil {
				t.Fatal(err)
			}
			now := stream.CachedInfo().Config
			config.Storage, config.Replicas, config.Subjects = jetstream.FileStorage, 1, now.Subjects
			config.DenyDelete, config.DenyPurge = config.DenyDelete || now.DenyDelete, config.DenyPurge || now.DenyPurge
			config.AllowMsgTTL, config.AllowMsgSchedules = config.AllowMsgTTL ||
				now.AllowMsgTTL, config.AllowMsgSchedules || now.AllowMsgSchedules
			if _, err := js.CreateOrUpdateStream(t.Context(), config); err != nil {
				t.Errorf("%s: %v", config.Name, err)
			}
		}
		for _, config := range []jetstream.KeyValueConfig{
			{Bucket: "idempotency", TTL: 7 * day}, {Bucket: "workflows", TTL: 30 * day}, {Bucket: "runner"},
			{Bucket: "snapshots", History: 1}, {Bucket: "secrets"},
			{Bucket: "placement"}, {Bucket: "tenants"}, {Bucket: "models", History: 64},
			{Bucket: "rebalances", TTL: 30 * day}, {Bucket: "nodes", TTL: minute},
		} {
			config.Storage, config.Replicas = jetstream.FileStorage, 1
			if _, err := js.CreateOrUpdateKeyValue(t.Context(), config); err != nil {
				t.Errorf("%s: %v", config.Bucket, err)
			}
		}
	}
	want := configs(t, js)
	for range 2 {
		baseline()
		ensure(t, js)
	}
	for name, config := range configs(t, js) {
		if config.Metadata["headgate.format"] != want[name].Metadata["headgate.format"] ||
			config.MaxAge != want[name].MaxAge || config.MaxMsgsPerSubject != want[name].MaxMsgsPerSubject {
			t.Errorf("%s: %+v, want %+v", name, config, want[name])
		}
	}
}

func TestEnsureStreams_UnchangedStreamsAreNotUpdated(t *testing.T) {
	js := natstest.Start(t)
	updates, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED.>")
	if err != nil {
		t.Fatal(err)
	}
	ensure(t, js)
	edit(t, js, streams.Events, func(c *jetstream.StreamConfig) { c.Duplicates = time.Hour })
	msg, err := updates.NextMsg(10 * time.Second)
	if err != nil || msg.Subject != "$JS.EVENT.ADVISORY.STREAM.UPDATED.EVENTS" {
		t.Fatal(msg, err)
	}
	if waiting, _, err := updates.Pending(); err != nil || waiting > 0 {
		t.Error("unchanged streams were updated")
	}
}
