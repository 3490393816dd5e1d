package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
)

// ErrNotSetUp means that streams or buckets are missing, or lack what this version needs. Only the
// set-up user may create and change them.
var ErrNotSetUp = errors.New("streams are not set up")

// Check compares the streams and buckets with their definitions, and changes nothing: it is
// for processes whose NATS user may not. outdated describes streams that can be used and that a
// set-up by this version would change. Errors: [ErrNotSetUp], a
// [format.NewerError], or a failure to read ([natsclient.Away]).
func Check(ctx context.Context, js jetstream.JetStream, replicas Replicas) (outdated []string, err error) {
	there, err := configurations(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("streams: the streams: %w", err)
	}
	var missing, newer []error
	for _, definition := range Definitions() {
		now, found := there[definition.Name]
		switch next, err := updated(now, Stored(definition, replicas)); {
		case !found && definition.Name == Timeline:
			outdated = append(outdated, definition.Name+" is missing: nothing is recorded of calls")
		case !found:
			missing = append(missing, fmt.Errorf("%s is missing", definition.Name))
		case err != nil:
			newer = append(newer, err)
		case len(next.Subjects) > len(now.Subjects):
			missing = append(
				missing,
				fmt.Errorf("%s lacks the subjects %s", definition.Name,
					strings.Join(next.Subjects[len(now.Subjects):], ", ")),
			)
		case lacksFlag(now, next):
			missing = append(missing, fmt.Errorf("%s lacks a property that this version needs", definition.Name))
		case now.Replicas < next.Replicas:
			outdated = append(
				outdated,
				fmt.Sprintf("%s has %d replicas, and the settings have %d", definition.Name, now.Replicas,
					next.Replicas),
			)
		case now.AllowRollup && !next.AllowRollup:
			outdated = append(
				outdated,
				definition.Name+
					" accepts rollups: a user that may write one of its keys can remove all others: run 'headgate "+
					"nats-setup' of this version",
			)
		case limitsOf(now) != limitsOf(next):
			outdated = append(outdated, definition.Name+" has limits of an earlier version")
		}
	}
	if err := errors.Join(newer...); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	if len(missing) > 0 {
		texts := make([]string, len(missing))
		for i, err := range missing {
			texts[i] = err.Error()
		}
		return nil, fmt.Errorf("streams: %w: %s: run 'headgate nats-setup' of this version as the set-up user",
			ErrNotSetUp, strings.Join(texts, "; "))
	}
	slices.Sort(outdated)
	return outdated, nil
}

// configurations returns the configurations of the existing streams, by name.
func configurations(ctx context.Context, js jetstream.JetStream) (map[string]jetstream.StreamConfig, error) {
	found := map[string]jetstream.StreamConfig{}
	err := natsclient.Patiently(ctx, func(ctx context.Context) error {
		clear(found)
		list := js.ListStreams(ctx)
		for info := range list.Info() {
			found[info.Config.Name] = info.Config
		}
		return list.Err()
	})
	return found, err
}

// lacksFlag reports whether a stream lacks a property that a publisher or reader relies on.
func lacksFlag(now, next jetstream.StreamConfig) bool {
	return now.AllowAtomicPublish != next.AllowAtomicPublish || now.AllowDirect != next.AllowDirect ||
		now.AllowMsgSchedules != next.AllowMsgSchedules || now.AllowMsgTTL != next.AllowMsgTTL ||
		now.DenyDelete != next.DenyDelete || now.DenyPurge != next.DenyPurge
}
