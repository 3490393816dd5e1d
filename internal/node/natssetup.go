package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// NATSSetup is what [SetUpNATS] does.
type NATSSetup struct {
	// Settings is a file of settings of any role.
	Settings string
	// NKey is the file of the set-up user's seed; "": the user of the settings.
	NKey string
	// NewJournal allows an empty journal beside data of a former one.
	NewJournal bool
	// Wait bounds the time in which NATS and JetStream may be unavailable; 0: they must be available.
	Wait time.Duration
}

// setUpTimeout bounds an attempt to set up while JetStream does not respond, so that the attempt's error is logged.
const setUpTimeout = 20 * time.Second

// SetUpNATS creates missing streams, buckets and secrets on NATS servers, and updates the ones that differ from their
// definition. It may be repeated, also while nodes run. While NATS is unavailable it retries until c.Wait has passed,
// and writes to logs what it waits for; a refused user, certificate or permission ends it immediately. The result is
// written to out. Errors: those of [setup.Ensure], with the servers and the reason if they were unavailable.
func SetUpNATS(ctx context.Context, c NATSSetup, out, logs io.Writer) error {
	settings, err := readSettings(c.Settings)
	if err != nil {
		return err
	}
	settings.NATS = settings.NATS.as(access.Setup)
	if c.NKey != "" {
		settings.NATS.NKey, settings.NATS.Credentials = c.NKey, ""
	}
	if err := settings.common(); err != nil {
		return settings.file.Locate(err)
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: logs, NoColor: true}).With().Timestamp().Logger()
	var waits repeated
	began := time.Now()
	for wait := startDelays.Next(0); ; wait = startDelays.Next(wait) {
		err := setUpOnce(ctx, settings.NATS, c.NewJournal, log)
		var away awayError
		if err == nil {
			break
		}
		if !errors.As(err, &away) || errors.Is(err, nats.ErrAuthorization) || ctx.Err() != nil {
			return err
		}
		if left := c.Wait - time.Since(began); left < wait {
			return fmt.Errorf("%s: %w (waited %v)", serversOf(settings.NATS.URL), err,
				time.Since(began).Round(time.Second))
		}
		if waits.isDue(err) {
			log.Warn().Err(err).Dur("again_in_ms", wait).Dur("for_at_most_ms", c.Wait).
				Msg("waiting for NATS at " + serversOf(settings.NATS.URL) + ": " + away.reason)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err = fmt.Fprintln(out, "NATS is set up: all streams, buckets and secrets are there")
	return err
}

// setUpOnce tries to set up once. Errors: an [awayError] while NATS is unavailable, or a permanent error.
func setUpOnce(ctx context.Context, settings natsSettings, newJournal bool, log zerolog.Logger) (err error) {
	refused := &denials{}
	conn, err := settings.connect("headgate-setup", refused.add, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), setUpTimeout)
	defer cancel()
	ctx, done := refused.during(ctx)
	defer done()
	defer func() { err = refusalOf(ctx, err) }()
	js, err := openBus(conn, nil, log)
	if err != nil {
		return err
	}
	if err := setUpStreams(
		ctx, js, streams.Replicas(settings.Replicas), log, streamOptions(newJournal, "")...,
	); err != nil {
		return ifAway(err, "the streams of JetStream cannot be opened")
	}
	return ifAway(kv.EnsureSecrets(ctx, js), "JetStream does not respond")
}

// serversOf returns the hosts of the URLs of servers, without credentials.
func serversOf(urls string) string {
	var hosts []string
	for text := range strings.SplitSeq(urls, ",") {
		if parsed, err := url.Parse(strings.TrimSpace(text)); err == nil && parsed.Host != "" {
			hosts = append(hosts, parsed.Host)
		}
	}
	return strings.Join(hosts, ", ")
}
