//go:build linux || darwin

package disk

import (
	"errors"
	"fmt"
	"syscall"
)

// Full reports whether err means that the file system, or the process's quota of it, is full.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// Room returns the bytes that this process may still write to the file system of dir. ok is false if the system does
// not report them.
func Room(dir string) (free uint64, ok bool, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, false, fmt.Errorf("disk: %s: %w", dir, err)
	}
	return stat.Bavail * uint64(stat.Bsize), true, nil
}
