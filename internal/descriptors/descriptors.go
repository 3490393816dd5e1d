// Package descriptors manages the process's limit of open files (RLIMIT_NOFILE): it raises the limit, compares it
// with the needs of the settings, and adds the limit to errors that it causes.
package descriptors

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Need is a number of files that a part of the process may have open concurrently.
type Need struct {
	// What names the part, such as "connections (max_connections)".
	What  string
	Count int
	// Always is set if the process cannot start without them.
	Always bool
}

// Check raises the process's limit as far as possible and compares it with the needs. warning is a message for the
// operator of a process that may run out of open files, or "". The error means that the limit is too low to start.
func Check(needs ...Need) (warning string, err error) {
	limit, err := raise()
	if err != nil || limit == 0 {
		return "", err
	}
	return compare(limit, needs)
}

// compare is Check for a limit.
func compare(limit uint64, needs []Need) (warning string, err error) {
	least, most := 0, 0
	var parts []string
	for _, need := range needs {
		most += need.Count
		if need.Always {
			least += need.Count
		}
		parts = append(parts, fmt.Sprintf("%d for %s", need.Count, need.What))
	}
	switch {
	case limit < uint64(least):
		return "", fmt.Errorf(
			"the process may have %d open files, and needs at least %d to start: raise the hard limit (LimitNOFILE= "+
				"of a systemd unit, ulimit -Hn)",
			limit, least,
		)
	case limit < uint64(most):
		return fmt.Sprintf(
			"the process may have %d open files, and the settings allow it to need %d (%s): raise the hard limit "+
				"(LimitNOFILE= of a systemd unit, ulimit -Hn), or lower the settings",
			limit, most, strings.Join(parts, ", "),
		), nil
	}
	return "", nil
}

// Exhausted reports whether err means that this process (EMFILE), or the system (ENFILE), has reached its limit of
// open files.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// Explain returns err with the cause if the limit of open files is reached and err does not contain it, since libraries
// such as SQLite only report that they cannot open a file.
func Explain(err error) error {
	if err == nil || Exhausted(err) {
		return err
	}
	file, cause := os.Open(os.DevNull)
	if cause == nil {
		_ = file.Close() // nothing was written
		return err
	}
	if !Exhausted(cause) {
		return err
	}
	return fmt.Errorf("%w: %w", errors.Unwrap(cause), err)
}
