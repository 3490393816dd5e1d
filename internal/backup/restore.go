package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// Errors of Restore beyond those of reading a backup.
var (
	// ErrData: the server has streams of a platform, and Replace is not set.
	ErrData = errors.New("the NATS server has a platform's data")
	// ErrRunning: nodes run on the server.
	ErrRunning = errors.New("nodes are running")
	// ErrDiffers: the restored data differ from the backup.
	ErrDiffers = errors.New("what was restored differs from the backup")
)

// Target configures the destination of a restore.
type Target struct {
	// Replicas is how many copies each stream has; 0 is 1.
	Replicas int
	// Replace deletes the platform's streams that the server has, with all data.
	Replace bool
	// Refusals adds to a workflow's record, as it was restored (nil: there is none), the
	// refusals that a later version of the record knows of. It returns nil if there are none.
	Refusals func(restored, later []byte) ([]byte, error)
	// Retain stores what must survive the replacement, durably: it is called before anything is deleted. nil: nothing.
	Retain func(ctx context.Context) error
	// Complete is called after the comparison, before nodes can start. nil: nothing remains to be done.
	Complete func(ctx context.Context) error
}

// Report is the result of a restore and its comparison.
type Report struct {
	// Streams and Messages count the restored streams and messages that equal the backup.
	Streams  int
	Messages uint64
	// Events and Aggregates are those of the journal. Gaps counts events whose version does
	// not follow that of the event before them, and FirstGap is the place of the first: the
	// journal was damaged when the backup was taken.
	Events, Aggregates uint64
	Gaps               uint64
	FirstGap           string
	// Ended are messages of the backup that have come due, expired or been replaced.
	Ended uint64
	// Refusals are the workflow records that refusals were added to.
	Refusals int
}

// Restore writes the backup in a directory to a NATS server on which no node runs, and compares
// the result with the backup. It checks the backup's checksums before it changes anything.
// While it runs, and after it has failed, nodes refuse to start (see
// [setup.ErrRestoring]); a further Restore with Replace starts again. Errors wrap
// [ErrIncomplete], [ErrNewer], [ErrDamaged], [ErrData], [ErrRunning] and [ErrDiffers].
func Restore(ctx context.Context, js jetstream.JetStream, dir string, target Target, options Options) (*Report, error) {
	manifest, err := check(ctx, dir, options)
	if err != nil {
		return nil, err
	}
	r := &restoring{
		js:       js,
		dir:      dir,
		manifest: manifest,
		options:  options,
		target:   target,
	}
	text, err := os.ReadFile(filepath.Join(dir, positionsFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := json.Unmarshal(text, &r.positions); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, positionsFile, err)
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf(
			"%w; the restore is incomplete and nodes will not start: restore again, replacing what is there", err,
		)
	}
	return &r.report, nil
}

// check reads the manifest and compares all files with it.
func check(ctx context.Context, dir string, options Options) (*Manifest, error) {
	manifest, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	for _, stream := range manifest.Streams {
		if err := streams.CheckFormat(stream.Config); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNewer, err)
		}
	}
	for _, file := range manifest.files() {
		if err := file.check(ctx, dir); err != nil {
			return nil, err
		}
		options.progress(Progress{
			Step:   "check",
			Stream: file.Name,
			Done:   uint64(file.Size),
			Total:  uint64(file.Size),
		})
	}
	return manifest, nil
}

// Check compares the files of a backup with the manifest, and looks for gaps in the versions of
// each aggregate's events. Errors wrap [ErrIncomplete], [ErrNewer] and [ErrDamaged].
func Check(ctx context.Context, dir string, options Options) (*Report, error) {
	manifest, err := check(ctx, dir, options)
	if err != nil {
		return nil, err
	}
	r := &restoring{dir: dir, manifest: manifest, options: options}
	for _, stream := range manifest.Streams {
		r.report.Streams++
		r.report.Messages += stream.Messages
	}
	if events, there := manifest.stream(streams.Events); there {
		if err := r.chains(ctx, events); err != nil {
			return nil, err
		}
	}
	return &r.report, nil
}

// restoring is a restore that is under way.
type restoring struct {
	js        jetstream.JetStream
	dir       string
	manifest  *Manifest
	positions []position
	options   Options
	target    Target
	report    Report
}

// quiet is how long a server on which no node runs has no announcement.
const quiet = 3 * time.Second

// prepare checks that nothing is in the way, or removes it.
func (r *restoring) prepare(ctx context.Context) error {
	var there []string
	known := streams.Names()
	list := r.js.StreamNames(ctx)
	for name := range list.Name() {
		if slices.Contains(known, name) {
			there = append(there, name)
		}
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("backup: list streams: %w", err)
	}
	if len(there) > 0 && !r.target.Replace {
		return fmt.Errorf(
			"backup: %w (%s): restore to an empty server, or delete this data and restore in its place (--replace)",
			ErrData, strings.Join(there, ", "),
		)
	}
	if err := r.noNodes(ctx, there); err != nil {
		return err
	}
	if err := setup.BeginRestore(ctx, r.js, streams.Replicas(r.target.Replicas)); err != nil {
		return err
	}
	if r.target.Retain != nil {
		if err := r.target.Retain(ctx); err != nil {
			return fmt.Errorf("backup: %w; nothing was replaced: restore again", err)
		}
	}
	for _, name := range there {
		if err := r.js.DeleteStream(ctx, name); err != nil {
			return fmt.Errorf("backup: delete stream %s: %w", name, err)
		}
	}
	return nil
}

// noNodes returns [ErrRunning] if a node announces itself.
func (r *restoring) noNodes(ctx context.Context, there []string) error {
	if !slices.Contains(there, bucketStream(streams.BucketNodes)) {
		return nil // nodes make it at their start
	}
	announced, err := r.js.Conn().SubscribeSync("$KV." + streams.BucketNodes + ".>")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = announced.Unsubscribe() }()
	waiting, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	for {
		msg, err := announced.NextMsgWithContext(waiting)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return nil // nothing was announced for so long
		case msg.Header.Get("KV-Operation") == "" && len(msg.Data) > 0:
			return fmt.Errorf("backup: %w (%s): stop them first", ErrRunning,
				strings.TrimPrefix(msg.Subject, "$KV."+streams.BucketNodes+"."))
		}
	}
}

func (r *restoring) run(ctx context.Context) error {
	// The journal comes last: without it no node of any version mistakes the rest for whole.
	order := slices.Clone(r.manifest.Streams)
	slices.SortStableFunc(order, func(a, b Stream) int {
		return boolInt(a.Stream == streams.Events) - boolInt(b.Stream == streams.Events)
	})
	for _, stream := range order {
		var consumers []position
		if stream.Stream == streams.Events {
			consumers = r.positions
		}
		if err := r.uploadPatiently(ctx, stream, consumers); err != nil {
			return fmt.Errorf("backup: restore %s: %w", stream.Stream, err)
		}
	}
	if err := r.verify(ctx, order); err != nil {
		return err
	}
	if err := r.moveCursors(ctx); err != nil {
		return err
	}
	if _, there := r.manifest.stream(bucketStream(streams.BucketJournal)); there {
		if err := journal.RecordRestored(contextkit.PlatformContext(ctx), r.js, r.manifest.Epoch); err != nil {
			return err
		}
	}
	if err := r.addRefusals(ctx); err != nil {
		return err
	}
	if r.target.Complete != nil {
		if err := r.target.Complete(ctx); err != nil {
			return err
		}
	}
	return setup.EndRestore(ctx, r.js)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addRefusals adds refusals to the restored workflow records that became known after these
// were read.
func (r *restoring) addRefusals(ctx context.Context) error {
	if r.target.Refusals == nil ||
		!slices.ContainsFunc(r.manifest.Files, func(f File) bool { return f.Name == laterFile }) {
		return nil
	}
	in, err := open(r.dir, laterFile)
	if err != nil {
		return err
	}
	defer in.close()
	for {
		m, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(m.header) > 0 && strings.Contains(string(m.header), "KV-Operation") {
			continue // it was deleted: there is nothing to be known of it
		}
		bucket, key, _ := strings.Cut(strings.TrimPrefix(m.subject, "$KV."), ".")
		kept, err := kv.Read(ctx, r.js, bucket, key)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		changed, err := r.target.Refusals(kept.Value, m.data)
		if err != nil {
			return fmt.Errorf("backup: workflow record %s: %w", key, err)
		}
		if changed == nil {
			continue
		}
		msg := &nats.Msg{Subject: m.subject, Header: nats.Header{}, Data: changed}
		if err := contextkit.InjectNATS(contextkit.PlatformContext(ctx), msg.Header); err != nil {
			return err
		}
		if _, err := r.js.PublishMsg(ctx, msg); err != nil {
			return fmt.Errorf("backup: workflow record %s: %w", key, err)
		}
		r.report.Refusals++
	}
}
