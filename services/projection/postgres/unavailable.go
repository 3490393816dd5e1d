package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/services/projection/store"
)

const (
	// connectTimeout bounds an attempt to connect, so that calls with a longer deadline learn that the database does
	// not respond.
	connectTimeout = 2 * time.Second
	// watchEvery is the interval between two checks of the database, and watchTimeout bounds one check.
	watchEvery   = time.Second
	watchTimeout = 2 * time.Second
)

// unavailableClasses are the SQLSTATE classes and codes (PostgreSQL 15, appendix A) of errors that are transient and
// that no query causes.
var unavailableClasses = []string{
	"08",    // connection exceptions
	"53",    // insufficient resources: too many connections, disk full, out of memory
	"57P",   // operator intervention: shut down, starting up, database dropped
	"25006", // read-only transaction: a standby accepts connections during a failover
	"58",    // system errors, for example of its disk
}

// usable wraps err in [store.ErrDamaged] if the generation no longer exists: a node that was disconnected until the
// others dropped it rebuilds it. Otherwise it returns the result of available.
func usable(ctx context.Context, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if ended(ctx) == nil &&
		(ok && slices.Contains(missingCodes, server.Code) || errors.Is(err, pgx.ErrNoRows)) { // no checkpoint
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return available(ctx, err)
}

// missingCodes are the SQLSTATE codes of a missing table or schema.
var missingCodes = []string{"42P01", "3F000"}

// available wraps err in [store.ErrUnavailable] if the database cannot be reached or cannot serve queries now. An
// error of ctx is returned unchanged.
func available(ctx context.Context, err error) error {
	if silent := ended(ctx); err != nil && silent != nil {
		return silent
	}
	if err == nil || ctx.Err() != nil || !unavailable(err) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// unavailable reports whether err means that the database is unavailable.
func unavailable(err error) bool {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		for _, class := range unavailableClasses {
			if strings.HasPrefix(server.Code, class) {
				return true
			}
		}
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.SafeToRetry(err) ||
		strings.Contains(err.Error(), "conn closed") // pgconn does not export this error
}

// health records whether the database responds.
type health struct {
	mu    sync.Mutex
	err   error
	since time.Time // of the last change
}

// set records the result of a check, and reports whether it is a change.
func (h *health) set(err error, now time.Time) (changed bool, before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed, before = (h.err == nil) != (err == nil), h.since
	h.err = err
	if changed {
		h.since = now
	}
	return changed, before
}

// Ready returns why the database cannot be used, nil when it can, as of the last check of [Database.Watch].
func (d *Database) Ready() error {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	if d.health.err == nil {
		return nil
	}
	return fmt.Errorf("PostgreSQL has not responded since %s", d.health.since.UTC().Format(time.RFC3339))
}

// Watch checks every second whether the database responds, for [Database.Ready], and renews the generations in use
// every few minutes, until ctx ends. While the database does not respond, running and new transactions end as
// [store.ErrUnavailable]. Changes are logged, once each, at level warn.
func (d *Database) Watch(ctx context.Context, log zerolog.Logger) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var probe probe
	defer func() { probe.close(ctx) }()
	for {
		attempt, cancel := context.WithTimeout(ctx, watchTimeout)
		err := probe.ask(attempt, d.pool.Config().ConnConfig)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		switch changed, before := d.health.set(err, now); {
		case !changed:
		case err != nil:
			d.guarded.set(err)
			d.pool.Reset() // existing connections may hang forever
			log.Warn().Err(err).Dur("again_in_ms", watchEvery).Msg(
				"PostgreSQL does not respond: queries return UNAVAILABLE, and no events are applied",
			)
		default:
			d.guarded.set(nil)
			log.Warn().Dur("after_ms", now.Sub(before)).Msg("PostgreSQL responds again")
		}
		if err == nil {
			if err := d.renewSometimes(ctx, now); err != nil && ctx.Err() == nil {
				log.Warn().Err(err).Msg("renewing the generations in use failed, retrying")
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// probe is a separate connection for [Database.Watch], which does not wait for those of a busy pool.
type probe struct{ conn *pgx.Conn }

// ask reports whether the database responds.
func (p *probe) ask(ctx context.Context, config *pgx.ConnConfig) (err error) {
	if p.conn == nil {
		if p.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			p.conn = nil
			return err
		}
	}
	if err = p.conn.Ping(ctx); err != nil {
		p.close(ctx)
	}
	return err
}

// close closes the connection, even if ctx has ended.
func (p *probe) close(ctx context.Context) {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchTimeout)
		defer cancel()
		_ = p.conn.Close(ctx) // it is closed in any case
		p.conn = nil
	}
}
