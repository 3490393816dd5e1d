package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// ErrExists is the error of a backup to a directory that has files.
var ErrExists = errors.New("the directory is not empty")

// Progress is how much of a stream has been copied or compared.
type Progress struct {
	// Step is "backup", "check", "restore" or "verify".
	Step string
	// Stream is the stream, or the file.
	Stream string
	// Done of Total messages (of a check: bytes) are done. Total may grow.
	Done, Total uint64
}

// Options configure taking and restoring a backup.
type Options struct {
	// Version is the version of the program.
	Version string
	// Progress is called after every few hundred messages; nil: no calls.
	Progress func(Progress)
}

func (o *Options) progress(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// position is a durable consumer of the journal: how far a runner is with a tenant's triggers.
type position struct {
	Config jetstream.ConsumerConfig `json:"config"`
	// Consumer and Stream are the acknowledgement floor, as the sequence of the delivery and
	// of the event.
	Consumer uint64 `json:"consumer"`
	Stream   uint64 `json:"stream"`
}

// Take writes a backup of the platform to a directory, which must be empty or absent. The platform
// may run. Memory is bounded, for any size of the streams. When Take fails the directory stays,
// with a file that marks the backup as incomplete. Errors: [ErrExists], that of ctx, and those of
// NATS and the file system.
func Take(ctx context.Context, js jetstream.JetStream, dir string, options Options) (*Manifest, error) {
	if err := makeEmpty(dir); err != nil {
		return nil, err
	}
	t := &taking{
		js:      js,
		dir:     dir,
		options: options,
		manifest: &Manifest{
			Format:  Format,
			Version: options.Version,
			Began:   time.Now().UTC(),
			Omitted: omitted,
		},
	}
	if err := t.run(ctx); err != nil {
		return nil, fmt.Errorf("%w; %s stays incomplete", err, dir)
	}
	return t.manifest, nil
}

// makeEmpty creates a directory with the file that marks the backup as incomplete.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil:
		return fmt.Errorf("backup: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("backup: %s: %w: name another one, backups are not overwritten", dir, ErrExists)
	}
	text := "A backup is being written to this directory, or was interrupted. It cannot be restored.\n"
	return writeSynced(filepath.Join(dir, incompleteFile), []byte(text))
}

// taking is a backup that is being taken.
type taking struct {
	js       jetstream.JetStream
	dir      string
	options  Options
	manifest *Manifest
}

// source is a stream that is being read.
type source struct {
	name   string
	config jetstream.StreamConfig
	total  uint64 // the stream's last sequence when it was asked last
	next   uint64
	file   *writer
}

func (t *taking) run(ctx context.Context) error {
	names, err := t.streams(ctx)
	if err != nil {
		return err
	}
	journal, err := t.open(ctx, streams.Events)
	if err != nil {
		return err
	}
	defer journal.file.abandon()
	if err := t.read(ctx, journal, journal.total); err != nil {
		return err
	}
	if err := t.positions(ctx); err != nil {
		return err
	}
	var records []*source // of workflows
	for _, name := range names {
		if name == streams.Events {
			if err := t.refresh(ctx, journal); err != nil {
				return err
			}
			if err := t.read(ctx, journal, journal.total); err != nil {
				return err
			}
			if err := t.finish(journal); err != nil {
				return err
			}
			t.manifest.Last = journal.file.last
			continue
		}
		s, err := t.whole(ctx, name)
		if err != nil {
			return err
		}
		if lateRecords[name] > 0 {
			records = append(records, s)
		}
	}
	if err := t.later(ctx, records); err != nil {
		return err
	}
	t.manifest.Ended = time.Now().UTC()
	if err := t.manifest.write(t.dir); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := os.Remove(filepath.Join(t.dir, incompleteFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// streams returns the names of the platform's existing streams, in the order in which they are
// read.
func (t *taking) streams(ctx context.Context) ([]string, error) {
	known := map[string]bool{}
	for _, name := range streams.Names() {
		known[name] = true
	}
	var there []string
	list := t.js.StreamNames(ctx)
	for name := range list.Name() {
		if known[name] {
			there = append(there, name)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("backup: list streams: %w", err)
	}
	return ordered(there), nil
}

// open makes the file of a stream.
func (t *taking) open(ctx context.Context, name string) (*source, error) {
	s := &source{name: name}
	if err := t.refresh(ctx, s); err != nil {
		return nil, err
	}
	var err error
	s.file, err = create(t.dir, name+".s2")
	return s, err
}

// refresh asks the stream's leader for its configuration and last sequence.
func (t *taking) refresh(ctx context.Context, s *source) error {
	stream, err := t.js.Stream(ctx, s.name)
	if err != nil {
		return fmt.Errorf("backup: stream %s: %w", s.name, err)
	}
	info := stream.CachedInfo()
	s.config, s.total = info.Config, info.State.LastSeq
	if s.name == streams.Events {
		t.manifest.Epoch = info.Created.UnixNano()
	}
	return nil
}

// every is how many messages are copied between two calls of Progress.
const every = 500

// read copies a stream's messages up to a sequence, 0: to its end.
func (t *taking) read(ctx context.Context, s *source, to uint64) (err error) {
	if to == 0 && s.total == 0 && s.name == streams.Events {
		return nil // an empty journal ends here
	}
	report := func() {
		t.options.progress(Progress{
			Step:   "backup",
			Stream: s.name,
			Done:   s.next,
			Total:  max(s.total, s.next),
		})
	}
	s.next, err = natsclient.ReadAll(ctx, t.js, s.name, s.next, to, func(raw *jetstream.RawStreamMsg) error {
		if err := s.file.add(newMessage(raw)); err != nil {
			return err
		}
		s.next = raw.Sequence
		if s.file.messages%every == 0 {
			report()
		}
		return nil
	})
	if err == nil {
		report()
	}
	return err
}

// whole copies a stream.
func (t *taking) whole(ctx context.Context, name string) (*source, error) {
	s, err := t.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer s.file.abandon()
	if err := t.read(ctx, s, 0); err != nil {
		return nil, err
	}
	return s, t.finish(s)
}

// finish ends a stream's file and describes it in the manifest.
func (t *taking) finish(s *source) error {
	file, err := s.file.close()
	if err != nil {
		return err
	}
	t.manifest.Streams = append(t.manifest.Streams, Stream{
		File:     file,
		Stream:   s.name,
		Config:   s.config,
		First:    s.file.first,
		Last:     s.file.last,
		Next:     max(s.file.last, s.total) + 1,
		Messages: s.file.messages,
		Bytes:    s.file.bytes,
	})
	return nil
}

// positions writes how far runners are with the journal.
func (t *taking) positions(ctx context.Context) error {
	stream, err := t.js.Stream(ctx, streams.Events)
	if err != nil {
		return fmt.Errorf("backup: stream %s: %w", streams.Events, err)
	}
	all := []position{}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable == "" || !strings.HasPrefix(info.Name, streams.RunnerConsumer("")) {
			continue // a reader that starts again where it wants to
		}
		all = append(all, position{Config: info.Config, Consumer: info.AckFloor.Consumer, Stream: info.AckFloor.Stream})
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return fmt.Errorf("backup: list consumers: %w", err)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return t.file(positionsFile, text)
}

// file writes a file and describes it in the manifest.
func (t *taking) file(name string, text []byte) error {
	if err := writeSynced(filepath.Join(t.dir, name), text); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	file, err := describe(t.dir, name)
	t.manifest.Files = append(t.manifest.Files, file)
	return err
}

// later writes the workflow records that have changed since they were read.
func (t *taking) later(ctx context.Context, records []*source) error {
	file, err := create(t.dir, laterFile)
	if err != nil {
		return err
	}
	defer file.abandon()
	for _, s := range records {
		if _, err := natsclient.ReadAll(ctx, t.js, s.name, s.next, 0, func(raw *jetstream.RawStreamMsg) error {
			return file.add(newMessage(raw))
		}); err != nil {
			return err
		}
	}
	described, err := file.close()
	t.manifest.Files = append(t.manifest.Files, described)
	return err
}
