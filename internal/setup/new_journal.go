package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Option is an option of [Ensure].
type Option func(*ensureOptions)

type ensureOptions struct {
	newJournal bool
	restoring  bool
	views      string
}

// NewJournal allows [Ensure] to create the stream EVENTS although other streams, or views,
// were made from a former one.
func NewJournal(options *ensureOptions) { options.newJournal = true }

// Restoring allows [Ensure] before [EndRestore], to the process that restores.
func Restoring(options *ensureOptions) { options.restoring = true }

// Beside names a directory that has files only after EVENTS had events, such as the directory of
// views; "": none.
func Beside(views string) Option {
	return func(options *ensureOptions) { options.views = views }
}

// ErrJournalMissing means that the stream EVENTS is missing although other streams or buckets were
// made from it. A new EVENTS would be empty, and reuse sequences that they refer to.
var ErrJournalMissing = errors.New("the stream " + streams.Events + " is missing")

// madeOfEvents are the streams that have messages only after EVENTS had.
var madeOfEvents = []string{
	"KV_" + streams.BucketJournal,
	"KV_" + streams.BucketSnapshots,
	"KV_" + streams.BucketIdempotency,
	"KV_" + streams.BucketInstances,
	"KV_" + streams.BucketWorkflows,
	streams.DeadLetters,
	streams.Work,
	"KV_" + streams.BucketTenants,
	"KV_" + streams.BucketModels,
	"KV_" + streams.BucketSecrets,
}

// missingLooks is the number of lookups of EVENTS while streams that were made from it exist:
// another process may have just created all of them.
const missingLooks = 3

// ensureJournal creates the stream EVENTS, before all others, if it is missing, and reports
// whether it replaces one. Error: [ErrJournalMissing], unless options allow it.
func ensureJournal(
	ctx context.Context,
	js jetstream.JetStream,
	replicas streams.Replicas,
	options ensureOptions,
) (replaces bool, err error) {
	events := streams.Stored(
		streams.Streams()[slices.IndexFunc(streams.Streams(),
			func(c jetstream.StreamConfig) bool { return c.Name == streams.Events })],
		replicas,
	)
	var derived string
	err = natsclient.Patiently(ctx, func(ctx context.Context) error {
		for look := range missingLooks {
			_, err := js.Stream(ctx, streams.Events)
			if !errors.Is(err, jetstream.ErrStreamNotFound) {
				derived = ""
				return err
			}
			if derived, err = firstUsed(ctx, js, options.views); err != nil {
				return err
			}
			if derived == "" || look == missingLooks-1 {
				break
			}
			select {
			case <-time.After(natsclient.AttemptPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if derived != "" && !options.newJournal {
			return fmt.Errorf(
				"%w, and %s was made from it: restore %s from a backup, or start with a new journal (--new-journal), "+
					"which accepts the loss of all events",
				ErrJournalMissing,
				derived,
				streams.Events,
			)
		}
		return streams.Ensure(ctx, js, events)
	})
	if err != nil && !errors.Is(err, ErrJournalMissing) {
		err = fmt.Errorf("stream %s: %w", streams.Events, err)
	}
	if err != nil {
		return false, fmt.Errorf("setup: %w", err)
	}
	return derived != "", nil
}

// firstUsed returns the first of madeOfEvents that has messages, or the directory of views if it
// has entries other than its format; "": none.
func firstUsed(ctx context.Context, js jetstream.JetStream, views string) (string, error) {
	for _, name := range madeOfEvents {
		stream, err := js.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
		case err != nil:
			return "", err
		case stream.CachedInfo().State.LastSeq > 0:
			return "the content of " + name, nil
		}
	}
	if views == "" {
		return "", nil
	}
	entries, err := os.ReadDir(views)
	entries = slices.DeleteFunc(entries, func(entry os.DirEntry) bool { return entry.Name() == format.File })
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return "", nil
	}
	return "the content of " + views, err
}
