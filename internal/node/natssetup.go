package node

import (
	"context"
	"fmt"
	"io"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// SetUpNATS creates missing streams, buckets and secrets on the NATS servers of a file of settings,
// and updates the ones that differ from their definition, as the set-up user whose seed is in the file
// nkey ("": the user of the settings). It may be repeated, also while nodes run. newJournal allows
// it to start an empty journal beside data of a former one. Lines for the operator are written to
// out. Errors: those of [setup.Ensure].
func SetUpNATS(ctx context.Context, path, nkey string, newJournal bool, out, logs io.Writer) (err error) {
	settings, err := readSettings(path)
	if err != nil {
		return err
	}
	settings.NATS = settings.NATS.as(access.Setup)
	if nkey != "" {
		settings.NATS.NKey, settings.NATS.Credentials = nkey, ""
	}
	if err := settings.common(); err != nil {
		return settings.file.Locate(err)
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: logs, NoColor: true}).With().Timestamp().Logger()
	refused := &denials{}
	conn, err := settings.NATS.connect("headgate-setup", refused.add, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, done := refused.during(contextkit.PlatformContext(ctx))
	defer done()
	defer func() { err = refusalOf(ctx, err) }()
	js, err := openBus(conn, nil, log)
	if err != nil {
		return err
	}
	if err := setUpStreams(
		ctx, js, streams.Replicas(settings.NATS.Replicas), log, streamOptions(newJournal, "")...,
	); err != nil {
		return err
	}
	if err := kv.EnsureSecrets(ctx, js); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "NATS is set up: all streams, buckets and secrets are there")
	return err
}
