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

	"github.com/headgate/headgate/services/projection/store"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

const (
	// connectTimeout bounds an attempt to connect, so that calls with a longer deadline learn
	// that the database does not answer.
	connectTimeout = 2 * time.Second
	// watchEvery is the interval between two checks of the database, and watchTimeout bounds
	// one.
	watchEvery   = time.Second
	watchTimeout = 2 * time.Second
)

// unavailableClasses are the SQLSTATE classes and codes (PostgreSQL 15, appendix A) of errors
// that a later attempt need not meet again and that no query causes.
var unavailableClasses = []string{
	"08",    // connection exceptions
	"53",    // insufficient resources: too many connections, disk full, out of memory
	"57P",   // operator intervention: shut down, starting up, database dropped
	"25006", // read-only transaction: a standby answers during a failover
	"58",    // system errors, such as of its disk
}

// usable marks err as [store.ErrDamaged] if the generation is no longer there: a node that was
// away for longer than the others wait makes it anew. Otherwise it is [available].
func usable(ctx context.Context, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if ended(ctx) == nil && (ok && slices.Contains(missingCodes, server.Code) || errors.Is(err, pgx.ErrNoRows)) { // no checkpoint
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return available(ctx, err)
}

// missingCodes are the SQLSTATE codes of a table or schema that is missing.
var missingCodes = []string{"42P01", "3F000"}

// available marks err as [store.ErrUnavailable] if the database cannot be reached or cannot
// serve any query now. An error of ctx is returned unchanged.
func available(ctx context.Context, err error) error {
	if silent := ended(ctx); err != nil && silent != nil {
		return silent
	}
	if err == nil || ctx.Err() != nil || !unavailable(err) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// unavailable reports whether err says that the database is away.
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
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err) ||
		strings.Contains(err.Error(), "conn closed") // pgconn does not export this error
}

// health is whether the database answers.
type health struct {
	mu    sync.Mutex
	err   error
	since time.Time // of the last change
}

// set records the outcome of a check, and reports whether it is a change.
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

// Ready returns why the database cannot be used, nil when it can, as of the last check, which
// [Database.Watch] makes each second.
func (d *Database) Ready() error {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	if d.health.err == nil {
		return nil
	}
	return fmt.Errorf("PostgreSQL does not answer since %s", d.health.since.UTC().Format(time.RFC3339))
}

// Watch checks each second whether the database answers, for [Database.Ready], and renews the
// generations in use every few minutes, until ctx ends. While it does not, transactions end as
// [store.ErrUnavailable], those under way and new ones. Changes are logged, once each, at level
// warn.
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
			d.pool.Reset() // connections of before may never answer again
			log.Warn().Err(err).Dur("again_in_ms", watchEvery).Msg("PostgreSQL does not answer: queries are refused as UNAVAILABLE, and no events are applied")
		default:
			d.guarded.set(nil)
			log.Warn().Dur("after_ms", now.Sub(before)).Msg("PostgreSQL answers again")
		}
		if err == nil {
			if err := d.renewSometimes(ctx, now); err != nil && ctx.Err() == nil {
				log.Warn().Err(err).Msg("that views are in use is not noted in PostgreSQL; it is tried again")
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// probe is a connection for [Database.Watch] alone: it does not wait for those of a busy pool.
type probe struct{ conn *pgx.Conn }

// ask reports whether the database answers.
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

// close closes the connection, also when ctx has ended.
func (p *probe) close(ctx context.Context) {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchTimeout)
		defer cancel()
		_ = p.conn.Close(ctx) // it is closed in any case
		p.conn = nil
	}
}
