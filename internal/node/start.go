package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// defaultStreamsTimeout bounds the wait for the leaders of streams in one attempt.
	defaultStreamsTimeout = 10 * time.Second
	// sameCause is the time after which an unchanged cause is logged again.
	sameCause = time.Minute
)

// startDelays are the waits after failed attempts to start.
var startDelays = backoff.Delays{First: 250 * time.Millisecond, Longest: 10 * time.Second}

// awayError is the error of an attempt to start that fails because a dependency of the role is unavailable. A later
// attempt may succeed.
type awayError struct {
	// reason is for /ready: it names the unavailable dependency, without addresses.
	reason string
	error
}

// Unwrap returns the cause.
func (e awayError) Unwrap() error { return e.error }

// start starts the role. While a dependency of the role is unavailable, it retries with delays that double from 250
// ms to 10 s, until ctx ends, and the role's addresses report that the process is alive and not ready (see
// [rpc.NewWaiting]).
func (p *Plan) start(ctx context.Context) (_ *running, err error) {
	if err := checkFiles(p.log, p.files()...); err != nil {
		return nil, err
	}
	p.waitFor("the start has not ended")
	if err := p.bind(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.sockets.Close()) }() // sockets that no server uses
	if err := p.serveWaiting(ctx); err != nil {
		return nil, err
	}
	var waits repeated
	for wait := startDelays.Next(0); ; wait = startDelays.Next(wait) {
		r, err := p.attempt(ctx)
		var away awayError
		if err == nil || ctx.Err() != nil || p.sockets.Taken() || !errors.As(err, &away) {
			return r, err
		}
		p.waitFor("the start waits: " + away.reason)
		if waits.isDue(err) {
			p.log.Warn().Err(err).Dur("again_in_ms", wait).Msg("the start waits: " + away.reason)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// repeated bounds the log lines of an error that is repeated.
type repeated struct {
	cause string
	at    time.Time
}

// isDue reports whether the error is another one than the last, or was last logged sameCause ago.
func (r *repeated) isDue(err error) bool {
	if r.cause == err.Error() && time.Since(r.at) < sameCause {
		return false
	}
	r.cause, r.at = err.Error(), time.Now()
	return true
}

// attempt tries to start the role once. Errors: an [awayError], or a permanent error.
func (p *Plan) attempt(ctx context.Context) (_ *running, err error) {
	ctx, done := p.denied.during(contextkit.PlatformContext(ctx))
	defer done()
	defer func() {
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, errDenied) {
			err = awayError{errDenied.Error(), cause}
		}
	}()
	conn, err := p.settings.NATS.connect("headgate-"+p.role.String(), p.denied.add, p.log)
	if err != nil {
		return nil, err
	}
	p.connected.Store(true)
	defer func() {
		if err != nil {
			p.connected.Store(false)
			conn.Close()
		}
	}()
	js, err := openBus(conn, nil, p.log)
	if err != nil {
		return nil, err
	}
	js.certificates = p.settings.certificates(p.role)
	streamList, cancel := context.WithTimeout(ctx, p.streamsTimeout)
	defer cancel()
	views := ""
	if p.role == contextkit.KindProjection {
		views = p.settings.Projection.Data
	}
	if err := ensureStreams(
		streamList, js, streams.Replicas(p.settings.NATS.Replicas), p.log, streamOptions(p.newJournal, views)...,
	); err != nil {
		return nil, ifAway(err, "the streams of JetStream cannot be opened")
	}
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	r, err := p.open(start, js)
	switch {
	case errors.Is(err, store.ErrFull):
		return nil, awayError{store.ErrFull.Error() + ": free disk space", err}
	case errors.Is(err, store.ErrUnavailable):
		return nil, awayError{"the database of the views does not respond", err}
	case err != nil:
		return nil, ifAway(err, "JetStream does not respond")
	}
	r.js = js
	return r, nil
}

// ifAway returns err as an [awayError] if the failed operation may succeed once NATS is available.
func ifAway(err error, reason string) error {
	if errors.Is(err, streams.ErrNotSetUp) {
		return awayError{streams.ErrNotSetUp.Error(), err}
	}
	if natsclient.Away(err) {
		return awayError{reason, err}
	}
	return err
}

// bind binds the role's addresses.
func (p *Plan) bind(ctx context.Context) error {
	for _, addr := range []string{p.listen.Addr, p.listen.GRPC, p.admin} {
		if addr == "" {
			continue
		}
		if _, err := p.sockets.Bind(ctx, addr); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.role, err), p.sockets.Close())
		}
	}
	return nil
}

// serveWaiting serves the role's addresses while the role starts.
func (p *Plan) serveWaiting(ctx context.Context) error {
	ready := func(context.Context, contextkit.TenantID) error {
		return errors.New(*p.waits.Load())
	}
	operators := p.listen.Addr
	if p.admin != "" || p.role == contextkit.KindGateway {
		operators = p.admin
	}
	for _, addr := range []string{p.listen.Addr, p.listen.GRPC, p.admin} {
		if addr == "" {
			continue
		}
		config := p.listen
		config.Addr, config.Ended = addr, nil
		if addr == p.admin {
			config.TLS = nil
		}
		server := rpc.NewWaiting(config, addr == operators, ready, p.log, p.whileWaiting()...)
		if err := p.sockets.Lend(ctx, server); err != nil {
			return err
		}
	}
	return nil
}

// whileWaiting returns metrics that the monitor exports once the role has started (see [natshealth.Monitor]), so that
// the alerts on them fire while it starts.
func (p *Plan) whileWaiting() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "headgate_nats_connected", Help: "1 while the process is connected to NATS."},
			func() float64 {
				if p.connected.Load() {
					return 1
				}
				return 0
			},
		),
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "headgate_jetstream_available", Help: "0 while the process has not started."},
			func() float64 { return 0 },
		),
	}
}

// waitFor sets the reason why the role is not ready.
func (p *Plan) waitFor(reason string) { p.waits.Store(&reason) }
