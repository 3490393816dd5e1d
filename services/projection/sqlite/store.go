// Package sqlite stores a tenant's views in one SQLite file: one table per view, and the checkpoint in the journal.
//
// Rows and checkpoint change in one transaction, so that the file has an exact checkpoint after any crash. The file
// is a cache of the journal: another model revision, or another journal, has a separate file.
package sqlite

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite" // also registers the driver
	lib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// readers bounds the concurrent queries of one tenant's file.
const readers = 4

// rowsPerStatement is the number of rows that putMany writes.
const rowsPerStatement = 16

// Store is the views of one tenant. Apply is called by one goroutine at a time, the reads by any number.
type Store struct {
	write, read *sql.DB
	views       []*model.View
	statements  map[string]*statements
	// putAggregate and putAggregates add one aggregate, and rowsPerStatement, to the index.
	putAggregate, putAggregates *sql.Stmt
	release                     func() // called when the file is no longer in use

	files    *files
	path     string
	replaced error // the reason why a damaged file was set aside; nil: none was
	single   bool  // read and write are the same connection: see openFor

	maxLog  int64        // in bytes
	written int64        // estimated bytes since the log's size was read; only Apply accesses it
	reading sync.RWMutex // held to read while a query reads
}

// writing are the settings of the connection that writes. A log of 16 MiB, four times SQLite's default, is copied
// into the file a quarter as often, so that pages which many batches change are written and synced less often.
// Statement journals stay in memory. Readers use SQLite's default of a file, since a reader that sorts in memory
// loses its cached pages: a page of 100 rows out of a million then takes six times as long. A larger cache would
// apply 20 % more events per second, and cost twice its size per tenant.
var writing = []string{"wal_autocheckpoint(4096)", "temp_store(MEMORY)"}

// sharedMode is the setting of a connection to a file with other connections, and singleMode that of a single one.
// The driver executes settings in the order of their names, so a journal_mode would use the log before the lock is
// exclusive.
const sharedMode, singleMode = "journal_mode(WAL)", "locking_mode(EXCLUSIVE)"

// statements are a view's prepared writes.
type statements struct{ row, put, putMany, remove *sql.Stmt }

// files tracks the files of one process in a directory.
type files struct {
	dir string

	mu     sync.Mutex
	inUse  map[string]int   // by path
	broken map[string]error // by path: files that the next open sets aside
}

func newFiles(dir string) *files {
	return &files{dir: dir, inUse: map[string]int{}, broken: map[string]error{}}
}

// keptGenerations is the number of newest files of a tenant that are retained, besides those in use: the current one,
// one that is being built, and one to revert to.
const keptGenerations = 3

// Open opens the tenant's file of an origin in dir, or creates it. origin identifies the model and the journal that
// the file is made from; a few files of other origins are retained.
func Open(
	ctx context.Context, dir string, tenant contextkit.TenantID, views []*model.View, origin string,
) (*Store, error) {
	return newFiles(dir).open(ctx, tenant, views, origin)
}

func (f *files) open(
	ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string,
) (*Store, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	path := f.path(tenant, origin)
	_, absent := os.Lstat(path)
	opened, replaced, err := openOrReplace(ctx, path, views, origin, f.takeBroken(path))
	if err != nil {
		return nil, explained(fmt.Errorf("sqlite: %s: %w", path, err))
	}
	opened.files, opened.replaced = f, replaced
	opened.release = f.use(path)
	now := time.Now()
	err = os.Chtimes(path, now, now) // mark it as the newest
	if absent != nil || replaced != nil {
		err = errors.Join(err, f.removeOld(tenant))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: %w", err), opened.Close())
	}
	return opened, nil
}

// path returns the path of a tenant's file of an origin.
func (f *files) path(tenant contextkit.TenantID, origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(f.dir, tenant.String()+"."+hex.EncodeToString(sum[:8])+".db")
}

// use counts a file as in use, so that it is not removed, until release is called.
func (f *files) use(path string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inUse[path]++
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.inUse[path]--; f.inUse[path] == 0 {
			delete(f.inUse, path)
		}
	})
}

// removeOld removes the tenant's files of old generations.
func (f *files) removeOld(tenant contextkit.TenantID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	paths, err := filepath.Glob(filepath.Join(f.dir, tenant.String()+".*.db"))
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		used[path] = info.ModTime()
	}
	slices.SortFunc(paths, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, path := range paths[min(len(paths), keptGenerations):] {
		if f.inUse[path] > 0 {
			continue
		}
		for _, suffix := range sidecars {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// open opens a file. If its disk has no space for the shared memory of several connections, it opens the file with a
// single connection, which can read it.
func open(ctx context.Context, path string, views []*model.View, origin string) (*Store, error) {
	s, err := openFor(ctx, path, views, origin, false)
	if !errors.Is(err, store.ErrFull) {
		return s, err
	}
	if s, again := openFor(ctx, path, views, origin, true); again == nil {
		return s, nil
	}
	return nil, err
}

// openFor opens a file with one connection that writes and others that read, or with a single one. A single
// connection has an exclusive lock, and the index of the write-ahead log in its memory instead of in a file
// (https://sqlite.org/wal.html#use_of_wal_without_shared_memory): reads need no disk space.
func openFor(ctx context.Context, path string, views []*model.View, origin string, single bool) (_ *Store, err error) {
	s := &Store{
		views:      views,
		statements: map[string]*statements{},
		path:       path,
		maxLog:     maxLog,
		single:     single,
	}
	mode := sharedMode
	if single {
		mode = singleMode
	}
	if s.write, err = connect(path, 1, append([]string{mode}, writing...)...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(full(path, err), s.Close())
			removeEmpty(path)
		}
	}()
	if single {
		var found string
		if err := s.write.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&found); err != nil || found != "wal" {
			return nil, cmp.Or(err, errors.New("the file has no write-ahead log"))
		}
	}
	if err := s.prepareFile(ctx, views, origin); err != nil {
		return nil, err
	}
	if s.read = s.write; !single {
		if s.read, err = connect(path, readers, sharedMode); err != nil {
			return nil, err
		}
	}
	for _, view := range views {
		if s.statements[view.Name], err = s.prepare(ctx, view); err != nil {
			return nil, incomplete(err)
		}
	}
	return s, s.prepareAggregates(ctx)
}

// incomplete returns an error of preparing a statement, as [errIncomplete] if a table or a column is missing.
func incomplete(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == lib.SQLITE_ERROR {
		return fmt.Errorf("%w: %w", errIncomplete, err)
	}
	return err
}

// connect opens the file with the given number of connections, with settings in addition to the common ones.
func connect(path string, connections int, settings ...string) (*sql.DB, error) {
	// NORMAL may lose the newest commits in a crash of the machine, but never consistency: the checkpoint goes back
	// with the rows, and the journal is read again.
	pragmas := url.Values{"_pragma": append([]string{"synchronous(NORMAL)", "busy_timeout(5000)"}, settings...)}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// prepareFile creates the tables, or checks that they are of this origin.
func (s *Store) prepareFile(ctx context.Context, views []*model.View, origin string) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	if _, err := tx.ExecContext(
		ctx,
		`CREATE TABLE IF NOT EXISTS "_checkpoint" (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, origin TEXT NOT NULL)`,
	); err != nil {
		return err
	}
	var found string
	err = tx.QueryRowContext(ctx, `SELECT origin FROM "_checkpoint"`).Scan(&found)
	switch {
	case err == nil && found == origin:
		if err := upgrade(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	case err == nil:
		return errForeign
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	for _, view := range views {
		for _, statement := range schema(view) {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
	}
	if _, err := tx.ExecContext(
		ctx, `INSERT INTO "_checkpoint" (one, sequence, origin) VALUES (1, 0, ?)`, origin,
	); err != nil {
		return err
	}
	if err := upgrade(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

var sqlTypes = map[model.ColumnType]string{
	model.TypeString: "TEXT", model.TypeTimestamp: "TEXT", model.TypeJSON: "TEXT",
	model.TypeInt: "INTEGER", model.TypeBool: "INTEGER", model.TypeDouble: "REAL",
}

// schema returns the statements that create a view's table.
func schema(view *model.View) []string {
	table := query.SQLite.Table(view.Name)
	columns := []string{`"` + query.KeyColumn + `" TEXT PRIMARY KEY`}
	var indexes []string
	for _, column := range view.Columns {
		columns = append(columns, fmt.Sprintf("%q %s", column.Name, sqlTypes[column.Type]))
		if column.Index {
			// Tables and indexes share a namespace; no table's name has a dot.
			indexes = append(
				indexes,
				fmt.Sprintf(`CREATE INDEX "view_%s.%s" ON %s (%q, %q)`, view.Name, column.Name, table, column.Name,
					query.KeyColumn),
			)
		}
	}
	create := fmt.Sprintf("CREATE TABLE %s (%s) WITHOUT ROWID", table, strings.Join(columns, ", "))
	return append([]string{create}, indexes...)
}

func (s *Store) prepare(ctx context.Context, view *model.View) (*statements, error) {
	table := query.SQLite.Table(view.Name)
	columns := []string{`"` + query.KeyColumn + `"`}
	var selected []string
	for _, column := range view.Columns {
		columns = append(columns, fmt.Sprintf("%q", column.Name))
		selected = append(selected, fmt.Sprintf("%q", column.Name))
	}
	marks := "(?" + strings.Repeat(", ?", len(view.Columns)) + ")"
	put := fmt.Sprintf("INSERT OR REPLACE INTO %s (%s) VALUES ", table, strings.Join(columns, ", "))
	st := &statements{}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&st.row, fmt.Sprintf("SELECT %s FROM %s WHERE %q = ?", strings.Join(selected, ", "), table, query.KeyColumn)},
		{&st.put, put + marks},
		{&st.putMany, put + marks + strings.Repeat(", "+marks, rowsPerStatement-1)},
		{&st.remove, fmt.Sprintf("DELETE FROM %s WHERE %q = ?", table, query.KeyColumn)},
	} {
		var err error
		//nolint:sqlclosecheck // Close does
		if *p.stmt, err = s.write.PrepareContext(ctx, p.text); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// Close closes the file.
func (s *Store) Close() error {
	if s.release != nil {
		defer s.release()
	}
	var errs []error
	for _, st := range s.statements {
		if st == nil {
			continue
		}
		for _, stmt := range []*sql.Stmt{st.row, st.put, st.putMany, st.remove} {
			if stmt != nil {
				errs = append(errs, stmt.Close())
			}
		}
	}
	for _, stmt := range []*sql.Stmt{s.putAggregate, s.putAggregates} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
