package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natsserver"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/version"
	"github.com/headgate/headgate/services/runner"
)

// Store identifies the streams of a platform: those of the NATS servers in a settings file, or those in the data
// directory of a development platform, which must not be running. Exactly one field is set.
type Store struct {
	// Config is the path of a settings file of any role.
	Config string
	// NKey is the seed of the NATS user to act as, in place of that of the settings.
	NKey string
	// Data is a data directory.
	Data string
}

// open connects to the store. To restore, it creates a missing data directory, and syncs writes to the disk when the
// server is closed instead of one by one.
func (s Store) open(
	ctx context.Context, restore bool,
) (bound context.Context, js jetstream.JetStream, replicas int, closed func(), err error) {
	if (s.Config == "") == (s.Data == "") {
		return nil, nil, 0, nil, errors.New(
			"name either --config (the settings of 'serve') or --data (the directory of 'dev')",
		)
	}
	var conn *nats.Conn
	replicas = 1
	if s.Data != "" {
		dir := filepath.Join(s.Data, "nats")
		if _, err := os.Stat(dir); err != nil && !restore {
			return nil, nil, 0, nil, fmt.Errorf("--data %s contains no platform: %w", s.Data, err)
		}
		if err := format.OpenDir(s.Data, devFormat); err != nil {
			return nil, nil, 0, nil, err
		}
		embedded, err := natsserver.Start(ctx, natsserver.Config{Dir: dir, LazySync: restore})
		if err != nil {
			return nil, nil, 0, nil, fmt.Errorf("--data %s: %w: stop 'headgate dev' first", s.Data, err)
		}
		if conn, err = embedded.Connect("headgate-backup"); err != nil {
			embedded.Close()
			return nil, nil, 0, nil, err
		}
		closed = func() { conn.Close(); embedded.Close() }
	} else {
		settings, err := readSettings(s.Config)
		if err != nil {
			return nil, nil, 0, nil, err
		}
		role := access.Backup
		if restore {
			role = access.Setup
		}
		settings.NATS = settings.NATS.as(role)
		if s.NKey != "" {
			settings.NATS.NKey, settings.NATS.Credentials = s.NKey, ""
		}
		if err := settings.common(); err != nil {
			return nil, nil, 0, nil, settings.file.Locate(err)
		}
		refused := &denials{}
		if conn, err = settings.NATS.connect("headgate-backup", refused.add, zerolog.Nop()); err != nil {
			return nil, nil, 0, nil, err
		}
		var done func()
		ctx, done = refused.during(ctx)
		replicas, closed = settings.NATS.Replicas, func() { done(); conn.Close() }
	}
	if js, err = jetstream.New(conn); err != nil {
		closed()
		return nil, nil, 0, nil, err
	}
	return ctx, js, replicas, closed, nil
}

// refusalOf returns the subject that NATS has refused as the error of what failed for it, else err.
func refusalOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errDenied) {
		return cause
	}
	return err
}

// Backup writes a backup of the store to the directory dir, which must be absent or empty. The platform may be
// running, unless it is that of a data directory. The result is written to out, and the progress to progress. Errors:
// those of [backup.Take], and of the store.
func Backup(ctx context.Context, from Store, dir string, out, progress io.Writer) (err error) {
	ctx = contextkit.PlatformContext(ctx)
	ctx, js, _, closed, err := from.open(ctx, false)
	if err != nil {
		return err
	}
	defer closed()
	defer func() { err = refusalOf(ctx, err) }()
	began := time.Now()
	manifest, err := backup.Take(ctx, js, dir,
		backup.Options{Version: version.Get().Version, Progress: showProgress(progress)})
	if err != nil {
		return err
	}
	var messages, bytes uint64
	for _, stream := range manifest.Streams {
		messages, bytes = messages+stream.Messages, bytes+stream.Bytes
	}
	_, err = fmt.Fprintf(out, "%s: %d streams, %d messages, %d bytes; the journal up to sequence %d; %v\n",
		dir, len(manifest.Streams), messages, bytes, manifest.Last, time.Since(began).Round(time.Millisecond))
	return err
}

// Restore writes the backup in the directory dir to the store, on which no node may be running, and compares the result
// with the backup. replace allows it to delete existing data of a platform, of which the revocations of tokens stay: a
// token that was revoked after the backup is not accepted again. Errors: those of [backup.Restore], and of the store.
func Restore(ctx context.Context, to Store, dir string, replace bool, out, progress io.Writer) (err error) {
	ctx = contextkit.PlatformContext(ctx)
	manifest, err := backup.ReadManifest(dir)
	if err != nil {
		return err // before a data directory is created
	}
	ctx, js, replicas, closed, err := to.open(ctx, true)
	if err != nil {
		return err
	}
	defer closed()
	defer func() { err = refusalOf(ctx, err) }()
	began := time.Now()
	report, returned, err := restoreTo(ctx, js, replicas, dir, replace, progress)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(
		out,
		"restored and compared %d streams with %d messages: %d events of %d aggregates, %s; %d messages have expired "+
			"since; %d workflow records completed; %v\n%s",
		report.Streams, report.Messages, report.Events, report.Aggregates, gaps(report), report.Ended, report.Refusals,
		time.Since(began).Round(time.Millisecond), lostCredentials(manifest.Began, replace, returned),
	)
	return err
}

// restoreTo writes the backup to a store, and returns the number of revocations that were taken over from it. They are
// stored in NATS before anything is deleted, and returned before nodes can start: a restore that is interrupted at any
// step loses none, and the next one returns them.
func restoreTo(
	ctx context.Context, js jetstream.JetStream, replicas int, dir string, replace bool, progress io.Writer,
) (report *backup.Report, returned int, err error) {
	revocations, interrupted, err := retainedRevocations(ctx, js)
	if err != nil {
		return nil, 0, err
	}
	if replace && !interrupted {
		var sealed int
		if revocations, sealed, err = revocationsIn(ctx, js); err != nil {
			return nil, 0, fmt.Errorf(
				"nothing was replaced: the present revocations of tokens, which a restore retains, cannot be "+
					"read; restore into an empty store to go without them: %w", err,
			)
		}
		if sealed > 0 {
			_, _ = fmt.Fprintf(progress, "%d revocations of tokens cannot be opened, and are lost: their secret has "+
				"changed, or they are not the platform's\n", sealed)
		}
	}
	target := backup.Target{Replicas: replicas, Replace: replace, Refusals: runner.AddRefusals}
	if !interrupted {
		target.Retain = func(ctx context.Context) error { return retainRevocations(ctx, js, revocations) }
	}
	target.Complete = func(ctx context.Context) error {
		if !natsclient.Identified(js.Conn()) && len(revocations) == 0 {
			return nil // nodes create what is missing
		}
		if err := setup.Ensure(ctx, js, streams.Replicas(replicas), setup.Restoring); err != nil {
			return err
		}
		if err := kv.EnsureSecrets(ctx, js); err != nil {
			return err
		}
		returned, err = returnRevocations(ctx, js, revocations)
		return err
	}
	report, err = backup.Restore(ctx, js, dir, target,
		backup.Options{Version: version.Get().Version, Progress: showProgress(progress)})
	return report, returned, err
}

// CheckBackup checks the backup in the directory dir without a NATS server. Errors: those of [backup.Check].
func CheckBackup(ctx context.Context, dir string, out, progress io.Writer) error {
	report, err := backup.Check(ctx, dir, backup.Options{Progress: showProgress(progress)})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is complete: %d streams with %d messages, %d events of %d aggregates, %s\n",
		dir, report.Streams, report.Messages, report.Events, report.Aggregates, gaps(report))
	return err
}

// gaps returns a text about gaps in the versions of aggregates' events.
func gaps(report *backup.Report) string {
	if report.Gaps == 0 {
		return "without a gap in their versions"
	}
	return fmt.Sprintf("WITH %d GAPS in their versions, so that the journal was damaged when the backup was taken (%s)",
		report.Gaps, report.FirstGap)
}

// progressEvery is the minimum interval between two lines of progress of the same step.
const progressEvery = time.Second

// showProgress returns a function that writes a line of progress per second, and one at the end of each stream.
func showProgress(to io.Writer) func(backup.Progress) {
	var last time.Time
	return func(p backup.Progress) {
		if p.Done < p.Total && time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		unit := "messages"
		if p.Step == "check" {
			unit = "bytes"
		}
		// Errors of progress output are ignored.
		_, _ = fmt.Fprintf(to, "%s %s: %d of %d %s\n", p.Step, p.Stream, p.Done, p.Total, unit)
	}
}
