// Package postgres stores all tenants' views in one PostgreSQL database: one table per view, whose rows contain their
// tenant, and one checkpoint per tenant.
//
// Rows and checkpoint change in one transaction. Row-level security separates the tenants within the database: a
// transaction first names its tenant and then cannot read or write another tenant's rows with any SQL. Views of
// another model revision or journal are in another schema, so that nodes of both can run side by side during an
// upgrade.
package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// connections bounds a node's connections to the database.
	connections = 32
	// schemaLock is the advisory lock under which schemas are created and dropped.
	schemaLock = 0x68656164 // "head"
)

// ErrUnsafeRole reports that row-level security would not apply.
var ErrUnsafeRole = errors.New(
	"postgres: the database user is not subject to row-level security: use one that is not a superuser and does not " +
		"have BYPASSRLS",
)

// Database is a PostgreSQL database for views.
type Database struct {
	pool    *pgxpool.Pool
	health  health
	guarded *guarded
	readers *readers

	mu       sync.Mutex
	inUse    map[string]int                   // stores by schema
	prepared map[string]map[string]statements // by schema and view, for prepared generations

	renewed time.Time // time at which Watch last renewed the generations in use
}

// Open connects to the database at url. Errors: [ErrUnsafeRole], [store.ErrUnavailable], a [format.NewerError], or
// the driver's.
func Open(ctx context.Context, url string) (*Database, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: the URL cannot be used: %w", err)
	}
	config.MaxConns, config.PingTimeout = connections, pingTimeout
	if config.ConnConfig.ConnectTimeout == 0 { // the URL has no connect_timeout
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	var unsafe bool
	err = pool.QueryRow(ctx, `SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user`).Scan(&unsafe)
	if err == nil && unsafe {
		err = ErrUnsafeRole
	}
	if err == nil {
		err = checkFormat(ctx, pool)
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: connect: %w", available(ctx, err))
	}
	return &Database{
		pool:     pool,
		guarded:  newGuarded(),
		readers:  newReaders(),
		inUse:    map[string]int{},
		prepared: map[string]map[string]statements{},
	}, nil
}

// Close closes the connections. The stores must be closed before.
func (d *Database) Close() { d.pool.Close() }

// Views implements [store.Opener].
func (d *Database) Views(
	ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string,
) (store.Store, error) {
	sum := sha256.Sum256([]byte(origin + namesOf(views)))
	s := &Store{
		pool:    d.pool,
		guarded: d.guarded,
		readers: d.readers,
		tenant:  tenant,
		views:   views,
		schema:  "views_" + hex.EncodeToString(sum[:8]),
	}
	s.release = d.use(s.schema)
	if s.statements = d.statements(s.schema); s.statements != nil {
		return s, nil // another tenant's store has prepared the generation
	}
	if err := d.prepare(ctx, s.schema, origin, views, d.used()); err != nil {
		s.release()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s.statements = map[string]statements{}
	for _, view := range views {
		s.statements[view.Name] = newStatements(view)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prepared[s.schema] = s.statements
	return s, nil
}

// statements returns the statements of a prepared generation, nil if it is not prepared.
func (d *Database) statements(schema string) map[string]statements {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.prepared[schema]
}

// namesOf returns a part of the generation's name. It is "" unless a view's table had, in earlier versions, a name
// that PostgreSQL truncated: such views are rebuilt under another name.
func namesOf(views []*model.View) string {
	for _, view := range views {
		if table := "view_" + view.Name; query.PostgresName(table) != table {
			return "/names-2"
		}
	}
	return ""
}

// use counts a store of a schema until it is released.
func (d *Database) use(schema string) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse[schema]++
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.inUse[schema]--; d.inUse[schema] == 0 {
			delete(d.inUse, schema)
			delete(d.prepared, schema) // from now on it may be dropped
		}
	})
}

// used returns the schemas of open stores.
func (d *Database) used() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.inUse))
}

// Store is the views of one tenant.
type Store struct {
	guarded    *guarded
	readers    *readers
	pool       *pgxpool.Pool
	tenant     contextkit.TenantID
	schema     string
	views      []*model.View
	statements map[string]statements // by view; shared by all tenants
	release    func()
}

// statements are the statements that write a view.
type statements struct{ row, put, remove string }

func newStatements(view *model.View) statements {
	columns, marks, changes := []string{"_tenant", `"` + query.KeyColumn + `"`}, []string{"$1", "$2"}, []string{}
	var selected []string
	for i, column := range view.Columns {
		name := query.PostgreSQL.Column(column.Name)
		columns, selected = append(columns, name), append(selected, name)
		marks = append(marks, fmt.Sprintf("$%d", i+3))
		changes = append(changes, fmt.Sprintf("%s = EXCLUDED.%s", name, name))
	}
	table := query.PostgreSQL.Table(view.Name)
	where := fmt.Sprintf("FROM %s WHERE _tenant = $1 AND %q = $2", table, query.KeyColumn)
	return statements{
		row: fmt.Sprintf("SELECT %s %s", strings.Join(selected, ", "), where),
		put: fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (_tenant, %q) DO UPDATE SET %s", table,
			strings.Join(columns, ", "), strings.Join(marks, ", "), query.KeyColumn, strings.Join(changes, ", ")),
		remove: "DELETE " + where,
	}
}

// Text is compared byte by byte, as in SQLite. Page tokens rely on that.
var sqlTypes = map[model.ColumnType]string{
	model.TypeString: `TEXT COLLATE "C"`, model.TypeTimestamp: `TEXT COLLATE "C"`, model.TypeJSON: `TEXT COLLATE "C"`,
	model.TypeInt: "BIGINT", model.TypeBool: "BOOLEAN", model.TypeDouble: "DOUBLE PRECISION",
}

// prepare creates a generation's schema, once even if many nodes start together, and drops old generations except
// those in use by the node. It raises the format of the database.
func (d *Database) prepare(ctx context.Context, name, origin string, views []*model.View, used []string) error {
	ctx, t := d.guarded.begin(ctx, applyTimeout)
	defer t.end()
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(schemaLock)); err != nil {
			return err
		}
		var exists bool
		if err := tx.QueryRow(
			ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, name,
		).Scan(&exists); err != nil {
			return err
		}
		statements := generations
		if !exists {
			statements = append(slices.Clone(statements), schema(name, views)...)
		}
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		if exists {
			if err := upgrade(ctx, tx, name); err != nil {
				return err
			}
		}
		if err := raiseFormat(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(
			ctx, `UPDATE headgate.generations SET origin = $2 WHERE name = $1 AND origin = ''`, name, origin,
		); err != nil {
			return err
		}
		if err := renew(ctx, tx, used); err != nil {
			return err
		}
		if !exists {
			return dropOld(ctx, tx, used)
		}
		return nil
	})
	return available(ctx, err)
}

// schema returns the statements that create a generation.
func schema(name string, views []*model.View) []string {
	out := []string{
		fmt.Sprintf(`INSERT INTO headgate.generations (name) VALUES ('%s')`, name),
		fmt.Sprintf(`CREATE SCHEMA %q`, name),
		fmt.Sprintf(`SET LOCAL search_path TO %q`, name),
		`CREATE TABLE _checkpoint (_tenant TEXT COLLATE "C" PRIMARY KEY, sequence BIGINT NOT NULL)`,
	}
	tables := []string{`"_checkpoint"`}
	for _, view := range views {
		table := query.PostgreSQL.Table(view.Name)
		columns := []string{
			`_tenant TEXT COLLATE "C" NOT NULL`, fmt.Sprintf(`%q TEXT COLLATE "C" NOT NULL`, query.KeyColumn),
		}
		var indexes []string
		for _, column := range view.Columns {
			name := query.PostgreSQL.Column(column.Name)
			columns = append(columns, name+" "+sqlTypes[column.Type])
			if column.Index {
				// Nulls are ordered as by queries. Tables and indexes share a namespace; a table's name has a dot
				// only before a hash.
				index := query.PostgresName(fmt.Sprintf("view_%s.%s.index", view.Name, column.Name))
				indexes = append(
					indexes,
					fmt.Sprintf("CREATE INDEX %q ON %s (_tenant, %s NULLS FIRST, %q)", index, table, name,
						query.KeyColumn),
				)
			}
		}
		key := query.PostgresName("view_" + view.Name + ".key")
		columns = append(columns, fmt.Sprintf("CONSTRAINT %q PRIMARY KEY (_tenant, %q)", key, query.KeyColumn))
		out = append(append(out, fmt.Sprintf("CREATE TABLE %s (%s)", table, strings.Join(columns, ", "))), indexes...)
		tables = append(tables, table)
	}
	for _, table := range tables {
		out = append(out, policies(table)...)
	}
	return append(append(out, stateTables()...), indexTables()...)
}

// enter restricts the transaction to the tenant's rows of the generation.
func (s *Store) enter(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT set_config('headgate.tenant', $1, true), set_config('search_path', $2, true)`,
		s.tenant.String(), s.schema)
	return err
}

// Dialect implements [store.Store].
func (s *Store) Dialect() query.Dialect { return query.PostgreSQL }

// Close implements [store.Store]. The connections belong to the database.
func (s *Store) Close() error {
	s.release()
	return nil
}
