package natsserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// examineEvery is how often an embedded server and its directory are examined.
	examineEvery = 250 * time.Millisecond
	// probeEvery is the time between two attempts to write to a disk that was full, and probeBytes
	// the free space that a restart of the server requires: more than the largest message.
	probeEvery, probeBytes = time.Second, 2 * streams.MaxMessageBytes
)

// restartDelays are the waits between two starts of a server that fails again.
var restartDelays = backoff.Delays{First: probeEvery, Longest: time.Minute}

// errNotEnabled means that the server has disabled JetStream.
var errNotEnabled = errors.New("the server has disabled JetStream")

// Run examines the server and its directory until ctx ends, and declares to storage which streams
// fail.
//
// A NATS server whose disk refuses one write stores nothing more in that stream until it is
// restarted, even when there is room again, and does not answer its publishers. Run restarts it as
// soon as a write succeeds; connections of [Embedded.Connect] are restored.
//
// While the directory is missing, because it was removed, moved or unmounted, Run declares every
// stream as failing, and neither stops nor restarts the server: the server can still read its open
// files, which are lost when it stops, and a restarted server would begin with an empty journal.
// When the directory is back, the streams are used again.
func (e *Embedded) Run(ctx context.Context, storage *natshealth.Storage) error {
	ticker := time.NewTicker(examineEvery)
	defer ticker.Stop()
	w := &embeddedWatch{Embedded: e, storage: storage, pause: restartDelays.First}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.examine(ctx)
		}
	}
}

// embeddedWatch is the state of Run.
type embeddedWatch struct {
	*Embedded

	storage  *natshealth.Storage
	declared natshealth.Refusal // "": none
	journal  bool               // of EVENTS too
	since    time.Time          // when that began
	next     time.Time          // when the server may be restarted
	started  time.Time          // of the last restart
	pause    time.Duration
}

func (w *embeddedWatch) examine(ctx context.Context) {
	err := w.gone()
	w.lost.Store(err != nil)
	if err != nil {
		w.declare(natshealth.RefusalGone, allStreams(err))
		return
	}
	failing := w.failing()
	if len(failing) == 0 {
		w.declare("", nil)
		return
	}
	w.declare(natshealth.RefusalNoRoom, failing)
	if now := time.Now(); now.Before(w.next) {
		return
	} else if err := disk.Probe(w.config.Dir, probeBytes); err != nil {
		w.next = now.Add(probeEvery)
		return
	}
	w.restart(ctx)
}

// gone returns an error if the server's directory, or that of EVENTS in it, has disappeared or was
// replaced.
func (w *embeddedWatch) gone() error {
	if err := w.anchor.Check(); errors.Is(err, disk.ErrGone) {
		return err
	}
	found, err := w.statEvents()
	switch {
	case w.events == nil && err == nil:
		w.events = found
	case w.events != nil && (errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(found, w.events)):
		return fmt.Errorf("%s, %s: %w", w.config.Dir, streams.Events, disk.ErrGone)
	}
	return nil
}

// statEvents returns the directory of EVENTS.
func (e *Embedded) statEvents() (os.FileInfo, error) {
	return os.Stat(
		filepath.Join(e.config.Dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", streams.Events),
	)
}

// restart restarts the server unless its directory has disappeared.
func (w *embeddedWatch) restart(ctx context.Context) {
	w.stop()
	if w.gone() != nil {
		return // the next examination declares it
	}
	s, err := w.start(ctx)
	if err == nil {
		w.mu.Lock()
		w.server = s
		w.mu.Unlock()
	} else if ctx.Err() == nil {
		w.log.Error().Err(
			err,
		).Str(
			"directory",
			w.config.Dir,
		).Dur(
			"again_in_ms",
			w.pause,
		).Msg(
			"the NATS server cannot be restarted; it is tried again",
		)
	}
	w.started = time.Now()
	w.next, w.pause = w.started.Add(w.pause), restartDelays.Next(w.pause)
}

// failing returns why streams of the server do not store messages.
func (w *embeddedWatch) failing() map[string]error {
	w.mu.Lock()
	s := w.server
	w.mu.Unlock()
	if s == nil {
		return allStreams(errNoServer)
	}
	if !s.JetStreamEnabled() {
		return allStreams(errNotEnabled)
	}
	out := map[string]error{}
	for _, found := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if found.Type == server.HealthzErrorStream && strings.Contains(found.Error, "write error") {
			out[found.Stream] = errors.New(found.Error)
		}
	}
	return out
}

// allStreams returns one error for all streams.
func allStreams(err error) map[string]error {
	out := map[string]error{}
	for _, name := range natshealth.StorageStreams() {
		out[name] = err
	}
	return out
}

// declare declares to storage which streams fail, and logs a change.
func (w *embeddedWatch) declare(refusal natshealth.Refusal, failing map[string]error) {
	if refusal == "" && w.declared == "" {
		return
	}
	if w.declared == "" {
		w.since = time.Now()
		if w.since.Sub(w.started) > restartDelays.Longest {
			w.pause = restartDelays.First
		}
	}
	errs, cause := make([]*natshealth.StorageError, 0, len(failing)), error(nil)
	for stream, err := range failing {
		cause = err // one of them
		errs = append(
			errs,
			&natshealth.StorageError{
				Stream:   stream,
				Refusal:  refusal,
				Since:    w.since,
				Embedded: true,
				Cause:    err,
			},
		)
	}
	w.storage.Declare(errs)
	_, journal := failing[streams.Events]
	if refusal == w.declared && journal == w.journal {
		return
	}
	w.declared, w.journal = refusal, journal
	if refusal == "" {
		w.log.Warn().Str(
			"directory",
			w.config.Dir,
		).Dur(
			"after_ms",
			time.Since(w.since),
		).Msg(
			"the journal stores messages again",
		)
		return
	}
	line := w.log.Error().Err(cause).Str("directory", w.config.Dir).Strs("streams", slices.Sorted(maps.Keys(failing)))
	if free, known, err := disk.Room(w.config.Dir); known && err == nil {
		line = line.Uint64("bytes_free", free)
	}
	if refusal == natshealth.RefusalGone {
		line.Msg(
			"the directory of the journal has disappeared: commands are refused. Restore the directory, and commands " +
				"are accepted again; the files that the process has open are lost when it ends",
		)
	} else {
		line.Msg(
			"the disk of the journal refuses writes: nothing is stored in these streams, and commands are refused if " +
				streams.Events + " is one of them. Free disk space; the server is then restarted automatically",
		)
	}
}

var journalDisk = prometheus.NewDesc(
	"headgate_journal_disk_bytes",
	"Bytes of the file system that has the journal's directory: used by the messages of streams, and free.",
	[]string{"state"},
	nil,
)

var journalPresent = DirectoryPresent("journal")

// DirectoryPresent returns the description of the metric that reports whether a directory is
// still the directory that the process opened.
func DirectoryPresent(directory string) *prometheus.Desc {
	return prometheus.NewDesc(
		"headgate_data_directory_present",
		"1 while the directory that the process opened is present; 0 after it was removed, moved or unmounted.",
		nil,
		prometheus.Labels{"directory": directory},
	)
}

// Describe implements [prometheus.Collector].
func (e *Embedded) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- journalDisk
	descriptions <- journalPresent
}

// Collect implements [prometheus.Collector].
func (e *Embedded) Collect(metrics chan<- prometheus.Metric) {
	present := 1.0
	if e.lost.Load() {
		present = 0
	}
	metrics <- prometheus.MustNewConstMetric(journalPresent, prometheus.GaugeValue, present)
	if free, known, err := disk.Room(e.config.Dir); known && err == nil {
		metrics <- prometheus.MustNewConstMetric(journalDisk, prometheus.GaugeValue, float64(free), "free")
	}
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return
	}
	if used, err := s.Jsz(nil); err == nil {
		metrics <- prometheus.MustNewConstMetric(journalDisk, prometheus.GaugeValue, float64(used.Store), "used")
	}
}
