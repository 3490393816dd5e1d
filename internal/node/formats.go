package node

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/format"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// Formats of directories that this version writes. See [format.Format] for when to raise them; the formats of streams
// and buckets are in package streams.
var (
	// devFormat is the format of the data directory of 'dev': its folders and their use.
	devFormat = format.Format{Version: 1, Floor: 1}
	// viewsFormat is the format of a directory of views in SQLite: the files' names and layout. Version 2 stores the
	// id of the last event and records of single views, which version 1 ignores.
	viewsFormat = format.Format{Version: 2, Floor: 1}
)

// ensureStreams checks the limits of NATS, creates and updates streams and buckets (see [setup.Ensure]),
// and logs what an operator should change and which settings of an operator stay. A process with a NATS user
// changes nothing, and checks the streams instead (see [setup.Check]).
func ensureStreams(
	ctx context.Context, js *bus, replicas streams.Replicas, log zerolog.Logger, options ...setup.Option,
) error {
	if natsclient.Identified(js.Conn()) {
		warnings, err := setup.CheckLimits(ctx, js, replicas)
		if err != nil {
			return err
		}
		outdated, err := setup.Check(ctx, js, replicas)
		if err != nil {
			return err
		}
		for _, line := range append(warnings, outdated...) {
			log.Warn().Msg(line)
		}
		return nil
	}
	return setUpStreams(ctx, js, replicas, log, options...)
}

// setUpStreams is ensureStreams for a process that may change streams.
func setUpStreams(
	ctx context.Context, js *bus, replicas streams.Replicas, log zerolog.Logger, options ...setup.Option,
) error {
	warnings, err := setup.CheckLimits(ctx, js, replicas)
	if err != nil {
		return err
	}
	if err := setup.Ensure(ctx, js, replicas, options...); err != nil {
		return err
	}
	for _, warning := range warnings {
		log.Warn().Msg(warning)
	}
	lines, err := streams.RetainedLimits(ctx, js, replicas)
	for _, line := range lines {
		log.Info().Msg(line)
	}
	return err
}
