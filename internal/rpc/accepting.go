package rpc

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/descriptors"
)

// acceptQuiet is the time without a failure after which connections count as accepted again.
const acceptQuiet = 5 * time.Second

var errNotAccepting = errors.New(
	"too many open files: connections cannot be accepted; raise the process's limit (LimitNOFILE= of a systemd unit, " +
		"ulimit -Hn) or lower max_connections",
)

// accepting detects that a process cannot accept connections because no open file is left. The
// servers of net/http and grpc-go retry without reporting it. Its methods may be called
// concurrently.
type accepting struct {
	failures prometheus.Counter
	log      zerolog.Logger

	failed atomic.Int64 // when an Accept failed last, in nanoseconds since 1970; 0: not since it recovered
}

// listener returns l; failures of its Accept are recorded.
func (a *accepting) listener(l net.Listener) net.Listener { return acceptingListener{l, a} }

type acceptingListener struct {
	net.Listener

	to *accepting
}

// Accept implements [net.Listener].
func (l acceptingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.to.failed.Load() != 0 {
		l.to.note(err, time.Now())
	}
	return conn, err
}

// note records the outcome of an Accept; nil as the error also records that time has passed.
// Each change is logged once.
func (a *accepting) note(err error, now time.Time) {
	last := a.failed.Load()
	switch {
	case descriptors.Exhausted(err):
		a.failures.Inc()
		if a.failed.Swap(now.UnixNano()) == 0 {
			a.log.Error().Err(err).Msg(errNotAccepting.Error())
		}
	case err == nil && now.Sub(time.Unix(0, last)) >= acceptQuiet && a.failed.CompareAndSwap(last, 0):
		a.log.Warn().Msg("connections are accepted again")
	}
}

// ready returns a readiness that fails while connections cannot be accepted.
func (a *accepting) ready(next Readiness) Readiness {
	return func(ctx context.Context, tenant contextkit.TenantID) error {
		if a.failed.Load() != 0 {
			a.note(nil, time.Now())
		}
		if a.failed.Load() != 0 {
			return errNotAccepting
		}
		return next(ctx, tenant)
	}
}
