//go:build unix

package natsserver

import (
	"os"
	"syscall"
)

// lockFile takes the file's lock, which the system gives back with the process.
func lockFile(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
