package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// maxSetAside bounds the retained damaged files of a tenant.
	maxSetAside = 2
	// asideMark precedes the time in nanoseconds in the names of files that were set aside.
	asideMark = ".damaged-"
)

// sidecars are the suffixes of the files of a database, with the database file first.
var sidecars = []string{"", "-wal", "-shm"}

// openOrReplace opens a tenant's file. If the file is damaged or not a database, it is set aside and an empty one is
// opened instead, since the file is a cache of the journal. replaced is the reason, nil if the existing file was
// opened. broken is the damage that an earlier use has found, nil for none.
func openOrReplace(
	ctx context.Context, path string, views []*model.View, origin string, broken error,
) (s *Store, replaced, err error) {
	replaced = broken
	if replaced == nil {
		replaced = unusable(path)
	}
	if replaced == nil {
		if s, err = open(ctx, path, views, origin); err == nil || !damaged(err) {
			return s, nil, err
		}
		replaced = err
	}
	aside, err := setAside(path, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("it is damaged (%w) and cannot be set aside: %w", replaced, err)
	}
	if s, err = open(ctx, path, views, origin); err != nil {
		return nil, nil, err
	}
	return s, fmt.Errorf("%s was damaged, and is now %s: %w", path, aside, replaced), nil
}

// errForeign reports that a file with the right name was made from another model or journal.
var errForeign = errors.New("the file was made from another model or journal")

// errIncomplete reports that a table or column is missing.
var errIncomplete = errors.New("the file's tables are not those of the views")

// damaged reports whether an error means that the file's content cannot be used. Transient errors (a full disk, too
// many open files, a lock) are not among them.
func damaged(err error) bool {
	if errors.Is(err, errForeign) || errors.Is(err, errIncomplete) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() {
	case lib.SQLITE_IOERR_SHORT_READ, lib.SQLITE_IOERR_CORRUPTFS, lib.SQLITE_READONLY_DBMOVED:
		return true
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return true
	}
	return false
}

// unusable returns why the entry at path cannot be opened as a database, nil if it can or does not exist.
func unusable(path string) error {
	for _, suffix := range sidecars {
		info, err := os.Lstat(path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil //nolint:nilerr // opening it reports the error
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file (%s)", filepath.Base(path)+suffix, info.Mode().Type())
		case suffix == "" && info.Size() == 0:
			return errors.New("it is empty")
		}
		file, err := os.OpenFile(path+suffix, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("the process may not read and write %s", filepath.Base(path)+suffix)
		}
		if err == nil {
			_ = file.Close() // nothing was written
		}
	}
	return damagedLog(path + "-wal")
}

// setAside renames a file and its sidecars, so that they can be inspected, and removes the tenant's oldest ones
// beyond the bound. It returns the new path.
func setAside(path string, now time.Time) (string, error) {
	aside := fmt.Sprintf("%s%s%d", path, asideMark, now.UnixNano())
	for _, suffix := range sidecars {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	tenant, _, _ := strings.Cut(filepath.Base(path), ".") // names of tenants have no dot
	found, err := filepath.Glob(filepath.Join(filepath.Dir(path), tenant+".*"+asideMark+"*"))
	if err != nil {
		return "", err
	}
	times := map[string]struct{}{}
	for _, name := range found {
		times[asideTime(name)] = struct{}{}
	}
	for len(times) > maxSetAside {
		oldest := ""
		for at := range times {
			if oldest == "" || len(at) < len(oldest) || len(at) == len(oldest) && at < oldest {
				oldest = at
			}
		}
		delete(times, oldest)
		for _, name := range found {
			if asideTime(name) == oldest {
				_ = os.Remove(name) // a directory with files stays, since another program made it
			}
		}
	}
	return aside, nil
}

// asideTime returns the time in the name of a file that was set aside.
func asideTime(name string) string {
	_, at, _ := strings.Cut(filepath.Base(name), asideMark)
	at, _, _ = strings.Cut(at, "-")
	return at
}

// check returns an operation's error. If the file is damaged, the error wraps [store.ErrDamaged], and the next open
// sets the file aside. If the disk is full, it wraps [store.ErrFull].
func (s *Store) check(err error) error {
	if err == nil || !damaged(err) && !errors.Is(err, store.ErrDecode) {
		return full(s.path, err)
	}
	if s.files != nil {
		s.files.markBroken(s.path, err)
	}
	return fmt.Errorf("%w: %s: %w", store.ErrDamaged, s.path, err)
}

// Replaced returns why an earlier file was set aside when the store was opened, nil if none was.
func (s *Store) Replaced() error { return s.replaced }

// markBroken records that a file is damaged.
func (f *files) markBroken(path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[path] = err
}

// isBroken reports whether a file was found damaged and has not been set aside yet.
func (f *files) isBroken(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken[path] != nil
}

// takeBroken returns and removes the recorded damage of a file.
func (f *files) takeBroken(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.broken[path]
	delete(f.broken, path)
	return err
}

// Path returns the file's path.
func (s *Store) Path() string { return s.path }
