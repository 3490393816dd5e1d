package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/internal/disk"
	"github.com/headgate/headgate/services/projection/store"
)

// minFreeBytes is the free space below which an I/O error is treated as a full disk, since SQLite may return any of its
// I/O errors for a file that cannot grow.
const minFreeBytes = 1 << 20

// full wraps an error of the file at path in [store.ErrFull] if the file's disk is full. The file is intact, and the
// operation may be retried.
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
		if room, known, failed := disk.Room(filepath.Dir(path)); known && failed == nil && room < minFreeBytes {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
	}
	return err
}

// removeEmpty removes a file that was created but could not be written to, since it would be treated as damaged.
func removeEmpty(path string) {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
		return
	}
	if log, err := os.Lstat(path + "-wal"); err == nil && log.Size() > 0 {
		return
	}
	for _, suffix := range sidecars {
		_ = os.Remove(path + suffix) // the next start handles files that stay
	}
}
