package streams

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsclient"
)

// ReleaseReservation removes TIMELINE's reservation, which earlier versions made. While it exceeds
// the server's limit, three quarters of the free disk by default, the server refuses to create
// and to update any stream, so that no role would start, and even to remove the reservation:
// TIMELINE is then deleted, and the spans of the last day with it. The only error is that of ctx.
func ReleaseReservation(ctx context.Context, js jetstream.JetStream) error {
	attempt, cancel := context.WithTimeout(ctx, natsclient.AttemptTimeout)
	defer cancel()
	stream, err := js.Stream(attempt, Timeline)
	if err != nil {
		return ctx.Err() // the next steps report it
	}
	config := stream.CachedInfo().Config
	if config.MaxBytes <= 0 ||
		appliedLimits(config) != nil { // a version that records limits reserves nothing: it is an operator's
		return nil
	}
	config.MaxBytes = -1
	_, err = js.UpdateStream(attempt, config)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == natsclient.ErrCodeNoStorage {
		_ = js.DeleteStream(attempt, Timeline)
	}
	return ctx.Err()
}

// Stored returns a definition with where and how often the stream is stored.
func Stored(config jetstream.StreamConfig, replicas Replicas) jetstream.StreamConfig {
	config.Storage, config.Replicas = jetstream.FileStorage, int(replicas)
	if config.PersistMode == jetstream.AsyncPersistMode {
		config.Replicas = 1 // NATS allows no more; a lost server loses its records, and until it is back none is stored
	}
	return config
}

// Ensure creates a stream, or updates it if it differs from config. Error: a
// [format.NewerError], among others.
func Ensure(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	stream, err := js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		created := config
		if created.Metadata, err = recorded(
			nil, format.Record{Format: formatOf(config.Name)}, limitsOf(config),
		); err != nil {
			return err
		}
		_, err = js.CreateStream(ctx, created)
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		stream, err = js.Stream(ctx, config.Name) // another process, of another version, was first
	}
	if err != nil {
		return err
	}
	now := stream.CachedInfo().Config
	next, err := updated(now, config)
	if err != nil || reflect.DeepEqual(now, next) {
		return err // an update needs room on the disk, and the server's limits may refuse it
	}
	_, err = js.UpdateStream(ctx, next)
	if err != nil && ctx.Err() == nil {
		if next.Metadata = now.Metadata; reflect.DeepEqual(now, next) {
			return nil // the stream can be used; the next start records its format
		}
	}
	return err
}

// updated returns a stream's configuration brought up to its definition: missing subjects are
// added, and flags and replicas are raised and never lowered, except that rollups are disabled:
// with one, a user that may write a single key removes all others. Limits that an operator has
// set, and everything that the definition does not concern, stay. Of a stream that a newer
// version has changed, only missing flags and subjects are added.
func updated(now, definition jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	record, err := upgrade(now)
	if err != nil {
		return now, err
	}
	next := now
	next.Subjects = withSubjects(definition.Subjects, now.Subjects)
	for flag, set := range map[*bool]bool{
		&next.AllowAtomicPublish: definition.AllowAtomicPublish, &next.AllowDirect: definition.AllowDirect,
		&next.AllowMsgSchedules: definition.AllowMsgSchedules, &next.AllowMsgTTL: definition.AllowMsgTTL,
		&next.DenyDelete: definition.DenyDelete, &next.DenyPurge: definition.DenyPurge,
	} {
		*flag = *flag || set
	}
	next.Replicas = max(now.Replicas, definition.Replicas)
	if record.Version > formatOf(now.Name).Version {
		return next, nil
	}
	next.Description, next.Discard = definition.Description, definition.Discard
	next.AllowRollup = definition.AllowRollup || next.AllowMsgSchedules // schedules need them
	want := limitsOf(definition)
	bounds, _ := nextLimits(limitsOf(now), want, appliedLimits(now))
	next.MaxAge, next.MaxBytes, next.MaxMsgs = bounds.MaxAge, bounds.MaxBytes, bounds.MaxMsgs
	next.MaxMsgsPerSubject, next.MaxMsgSize, next.Duplicates = bounds.MaxMsgsPerSubject, int32(
		bounds.MaxMsgSize,
	), bounds.Duplicates
	next.Metadata, err = recorded(now.Metadata, record, want)
	return next, err
}

// withSubjects returns subjects and those of further that none of them is.
func withSubjects(subjects, further []string) []string {
	all := slices.Clone(subjects)
	for _, subject := range further {
		if !slices.Contains(all, subject) {
			all = append(all, subject)
		}
	}
	return all
}

// Restore updates a stream to its definition if it lacks one of the definition's
// subjects, because a process of an earlier version has started since. It is for when a
// publish to the stream fails with [jetstream.ErrNoStreamResponse], and reports whether the
// stream had to be updated. Of the streams it creates TIMELINE alone, without which processes
// start.
func Restore(ctx context.Context, js jetstream.JetStream, name string) (bool, error) {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && name == Timeline && !natsclient.Identified(js.Conn()) {
		for _, config := range Streams() {
			if config.Name == name {
				err = Ensure(ctx, js, Stored(config, 1))
			}
		}
		return err == nil, err
	}
	if err != nil {
		return false, fmt.Errorf("streams: stream %s: %w", name, err)
	}
	now := stream.CachedInfo().Config
	for _, config := range Streams() {
		if config.Name == name && natsclient.Identified(js.Conn()) &&
			len(withSubjects(now.Subjects, config.Subjects)) > len(now.Subjects) {
			return false, fmt.Errorf(
				"streams: stream %s lacks subjects: %w: run 'headgate nats-setup' of this version as the set-up user",
				name, ErrNotSetUp,
			)
		}
		if config.Name != name || len(withSubjects(now.Subjects, config.Subjects)) == len(now.Subjects) {
			continue
		}
		config.Storage, config.Replicas = now.Storage, now.Replicas
		if err := Ensure(ctx, js, config); err != nil {
			return false, fmt.Errorf("streams: stream %s: %w", name, err)
		}
		return true, nil
	}
	return false, nil
}
