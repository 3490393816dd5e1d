package streams

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/format"
)

// baseline is the format of streams and buckets that record no format.
var baseline = format.Format{Version: 1, Floor: 1}

// formats are the formats that this version writes, by the name of the stream (also for buckets), where they differ
// from baseline. Increase Version with every change of a definition or of the contents of messages. Increase Floor only
// with a change that lower versions would misread. If nodes of both versions run side by side during an upgrade, record
// the change by [RaiseFormat] after the last node of the lower version has stopped.
var formats = map[string]format.Format{}

// formatOf returns the format that this version writes.
func formatOf(stream string) format.Format {
	if f, ok := formats[stream]; ok {
		return f
	}
	return baseline
}

// Keys of the metadata of streams that record formats and limits.
const (
	metaFormat = "headgate.format" // the version of the format
	metaFloor  = "headgate.floor"  // the lowest version that may use the stream
	metaWriter = "headgate.writer" // the program that last increased one of the two
	metaLimits = "headgate.limits" // the limits that a program applied last, as JSON
)

// recordOf returns the format that a stream records.
func recordOf(config jetstream.StreamConfig) format.Record {
	number := func(key string) int {
		n, _ := strconv.Atoi(config.Metadata[key]) // 0: not recorded
		return n
	}
	return format.Record{
		Format: format.Format{Version: number(metaFormat), Floor: number(metaFloor)},
		Writer: config.Metadata[metaWriter],
	}
}

// upgrade returns the format record that a stream has after this version has started to use it. Error: a
// [format.NewerError].
func upgrade(now jetstream.StreamConfig) (format.Record, error) {
	what := "stream " + now.Name
	if bucket, ok := strings.CutPrefix(now.Name, BucketPrefix); ok {
		what = "bucket " + bucket
	}
	return recordOf(now).Upgrade(what, formatOf(now.Name))
}

// CheckFormat returns a [format.NewerError] if the stream or bucket with this configuration needs a newer version of
// the program.
func CheckFormat(config jetstream.StreamConfig) error {
	_, err := upgrade(config)
	return err
}

// BucketPrefix is the prefix of the names of the streams that store buckets (NATS ADR-8).
const BucketPrefix = "KV_"

// CheckFormats returns an error if any stream or bucket needs a newer version of the program. It changes nothing.
func CheckFormats(ctx context.Context, js jetstream.JetStream) error {
	known := map[string]bool{}
	for _, definition := range Definitions() {
		known[definition.Name] = true
	}
	list := js.ListStreams(ctx)
	var errs []error
	for info := range list.Info() {
		if known[info.Config.Name] {
			_, err := upgrade(info.Config)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, list.Err())...)
}

// RaiseFormat records a format for a stream. Programs whose version is below its floor then do not start. It is for
// changes that take effect while nodes run.
func RaiseFormat(ctx context.Context, js jetstream.JetStream, name string, to format.Format) error {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("streams: stream %s: %w", name, err)
	}
	config := stream.CachedInfo().Config
	record := recordOf(config)
	next, err := record.Upgrade("stream "+name, to)
	if err != nil || next == record {
		return err
	}
	config.Metadata = withRecord(config.Metadata, next)
	if _, err := js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("streams: stream %s: %w", name, err)
	}
	return nil
}

// withRecord returns metadata with a format record.
func withRecord(metadata map[string]string, record format.Record) map[string]string {
	metadata = maps.Clone(metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[metaFormat], metadata[metaFloor] = strconv.Itoa(record.Version), strconv.Itoa(record.Floor)
	if metadata[metaWriter] = record.Writer; record.Writer == "" {
		metadata[metaWriter] = format.Program()
	}
	return metadata
}

// limits are the bounds of a stream that operators may change. -1 means unlimited, 0 for MaxAge; Duplicates is never
// unlimited.
type limits struct {
	MaxAge            time.Duration `json:"max_age"`
	MaxBytes          int64         `json:"max_bytes"`
	MaxMsgs           int64         `json:"max_msgs"`
	MaxMsgsPerSubject int64         `json:"max_msgs_per_subject"`
	MaxMsgSize        int64         `json:"max_msg_size"`
	Duplicates        time.Duration `json:"duplicate_window"`
}

// limitsOf returns the limits of a configuration.
func limitsOf(config jetstream.StreamConfig) limits {
	unlimited := func(bound int64) int64 {
		if bound == 0 {
			return -1 // as the server stores it
		}
		return bound
	}
	return limits{
		MaxAge:            config.MaxAge,
		MaxBytes:          unlimited(config.MaxBytes),
		MaxMsgs:           unlimited(config.MaxMsgs),
		MaxMsgsPerSubject: unlimited(config.MaxMsgsPerSubject),
		MaxMsgSize:        unlimited(int64(config.MaxMsgSize)),
		Duplicates:        cmp.Or(config.Duplicates, dedupeWindow), // dedupeWindow is the server's default too
	}
}

// appliedLimits returns the limits that a program has applied to a stream; nil: not recorded.
func appliedLimits(config jetstream.StreamConfig) *limits {
	var applied limits
	if json.Unmarshal([]byte(config.Metadata[metaLimits]), &applied) != nil {
		return nil
	}
	return &applied
}

// limit describes one field of limits.
type limit struct {
	name      string
	unlimited int64 // the value that means unlimited
	of        func(*limits) int64
	set       func(to *limits, value int64)
}

var allLimits = []limit{
	{
		"max_age",
		0,
		func(l *limits) int64 { return int64(l.MaxAge) },
		func(l *limits, v int64) { l.MaxAge = time.Duration(v) },
	},
	{"max_bytes", -1, func(l *limits) int64 { return l.MaxBytes }, func(l *limits, v int64) { l.MaxBytes = v }},
	{"max_msgs", -1, func(l *limits) int64 { return l.MaxMsgs }, func(l *limits, v int64) { l.MaxMsgs = v }},
	{
		"max_msgs_per_subject",
		-1,
		func(l *limits) int64 { return l.MaxMsgsPerSubject },
		func(l *limits, v int64) { l.MaxMsgsPerSubject = v },
	},
	{"max_msg_size", -1, func(l *limits) int64 { return l.MaxMsgSize }, func(l *limits, v int64) { l.MaxMsgSize = v }},
	{
		"duplicate_window",
		-1,
		func(l *limits) int64 { return int64(l.Duplicates) },
		func(l *limits, v int64) { l.Duplicates = time.Duration(v) },
	},
}

// nextLimits returns the limits of a stream after a program that defines want has started, and the names of the limits
// that it retains because an operator has set them. A limit was set by an operator if it differs from the one that a
// program applied last. If that is not recorded (applied is nil), it was if the definition is narrower.
func nextLimits(now, want limits, applied *limits) (next limits, retained []string) {
	next = want
	for _, l := range allLimits {
		is, defined := l.of(&now), l.of(&want)
		operators := is != defined
		if applied != nil {
			operators = operators && is != l.of(applied)
		} else {
			operators = operators && is != l.unlimited && defined != l.unlimited && defined < is
		}
		if operators {
			l.set(&next, is)
			retained = append(retained, l.name)
		}
	}
	return next, retained
}

// RetainedLimits returns a line for each limit of a stream or bucket that start-up retains because an operator has set
// it, although this version defines another value, and for each stream that has more replicas than configured.
func RetainedLimits(ctx context.Context, js jetstream.JetStream, replicas Replicas) (lines []string, err error) {
	defined := map[string]jetstream.StreamConfig{}
	for _, definition := range Definitions() {
		defined[definition.Name] = Stored(definition, replicas)
	}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		definition, known := defined[info.Config.Name]
		if !known {
			continue
		}
		now, want := limitsOf(info.Config), limitsOf(definition)
		_, retained := nextLimits(now, want, appliedLimits(info.Config))
		for _, l := range allLimits {
			if slices.Contains(retained, l.name) {
				lines = append(
					lines,
					fmt.Sprintf(
						"%s: %s stays %d as an operator has set it; this version defines %d",
						info.Config.Name,
						l.name,
						l.of(&now),
						l.of(&want),
					),
				)
			}
		}
		if info.Config.Replicas > definition.Replicas {
			lines = append(
				lines,
				fmt.Sprintf(
					"%s: it has %d replicas and retains them; the settings ask for %d",
					info.Config.Name,
					info.Config.Replicas,
					definition.Replicas,
				),
			)
		}
	}
	return lines, list.Err()
}

// recorded returns the metadata of a stream with its format and with the limits that this program applies, which are
// those of want even where it retains an operator's limit.
func recorded(metadata map[string]string, record format.Record, want limits) (map[string]string, error) {
	text, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	metadata = withRecord(metadata, record)
	metadata[metaLimits] = string(text)
	return metadata, nil
}
