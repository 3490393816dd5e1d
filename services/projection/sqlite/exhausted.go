package sqlite

import (
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/internal/descriptors"
	"github.com/headgate/headgate/services/projection/store"
)

// explained returns err as a [store.ErrUnavailable] with the cause if a file cannot be opened because the process, or
// the system, has reached its limit of open files, which SQLite does not report.
func explained(err error) error {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		if code := e.Code() & 0xff; code != lib.SQLITE_CANTOPEN && code != lib.SQLITE_IOERR {
			return err
		}
	} else if !descriptors.Exhausted(err) {
		return err
	}
	if cause := descriptors.Explain(err); descriptors.Exhausted(cause) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	}
	return err
}
