package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/services/projection/store"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// leastRoom is the room below which an I/O error is one for lack of room: SQLite reports a file
// that cannot grow as any of its I/O errors.
const leastRoom = 1 << 20

// full returns an error of the file at path, which wraps [store.ErrFull] if the file's disk has no
// room. The file is whole, and what failed may be repeated.
func full(path string, err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		if disk.Full(err) {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN:
		if room, known, failed := disk.Room(filepath.Dir(path)); known && failed == nil && room < leastRoom {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
	}
	return err
}

// removeEmpty removes a file that could be made, and into which nothing could be written: it would
// be taken for a damaged one.
func removeEmpty(path string) {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
		return
	}
	if log, err := os.Lstat(path + "-wal"); err == nil && log.Size() > 0 {
		return
	}
	for _, suffix := range sidecars {
		_ = os.Remove(path + suffix) // what stays, the next start finds
	}
}
