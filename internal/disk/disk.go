// Package disk examines the file system of a process's data: whether an error means that it is
// full, its free space, whether a write succeeds, and whether a directory is still the one that the
// process opened.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrGone is the error of [Anchor.Check] for a directory that was removed, moved, unmounted, or replaced.
var ErrGone = errors.New("the directory is not the one that this process opened")

// Probe writes a file of size bytes in dir, syncs it to the disk, and removes it. It returns the error if that fails.
// Free space alone does not imply that writes succeed, because of quotas, inodes and read-only file systems.
func Probe(dir string, size int) (err error) {
	file, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	defer func() {
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		if err != nil {
			err = fmt.Errorf("disk: %w", err)
		}
	}()
	block := make([]byte, 64<<10)
	for left := size; left > 0; left -= len(block) {
		if _, err := file.Write(block[:min(left, len(block))]); err != nil {
			return err
		}
	}
	return file.Sync()
}

// Anchor identifies a directory that the process holds open, or a file in it. Files that a process has open outlive
// their directory, but what it writes to them is lost when it ends, without an error. Its methods may be called
// concurrently.
type Anchor struct {
	path string
	file *os.File
}

// NewAnchor returns the anchor of an open file or directory, which remains the caller's.
func NewAnchor(file *os.File) *Anchor { return &Anchor{path: filepath.Clean(file.Name()), file: file} }

// Check returns nil while the path of the file still leads to the file. Errors: [ErrGone] with the path in its text,
// or the error of checking.
func (a *Anchor) Check() error {
	opened, err := a.file.Stat()
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	found, err := os.Stat(a.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(opened, found) {
		return fmt.Errorf("%s: %w: it was removed, moved, unmounted, or replaced", a.path, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}
