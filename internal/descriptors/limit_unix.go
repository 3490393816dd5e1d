//go:build unix

package descriptors

import (
	"fmt"
	"syscall"
)

// raise raises the soft limit to the hard limit, and returns it.
func raise() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("the limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		higher := limit
		higher.Cur = limit.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &higher) == nil {
			limit = higher
		} // otherwise the soft limit stays, and is compared
	}
	return uint64(limit.Cur), nil //nolint:unconvert // a signed integer on some systems
}
