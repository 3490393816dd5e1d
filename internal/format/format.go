// Package format records format versions in a directory, a stream or a bucket, so that a program rejects data that it
// would misread. It does not convert data.
//
// A format has a version, which grows with every change of the stored data, and a floor: the lowest version that a
// program must know to use the data. A change that older programs tolerate raises only the version; one that they
// would misread also raises the floor, after which a downgrade is impossible. Data without a record has version and
// floor 1.
package format

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
)

// Format is a version with its floor.
type Format struct {
	// Version is the version of the data, or the highest version that a program knows.
	Version int `json:"format"`
	// Floor is the lowest version that a program must know to use the data.
	Floor int `json:"floor"`
}

// Record is the format of data, and the version of the program that raised it last.
type Record struct {
	Format

	Writer string `json:"writer,omitempty"`
}

// NewerError reports that data needs a newer program.
type NewerError struct {
	// What names the data, such as "stream EVENTS".
	What string
	// Record is the record of the data, Known the highest version that this program knows, and Program the version of
	// this program.
	Record  Record
	Known   int
	Program string
}

// Error names both versions and the remedies.
func (e *NewerError) Error() string {
	writer := cmp.Or(e.Record.Writer, "the newer version")
	return fmt.Sprintf(
		"%s has format %d, written by headgate %s, which needs a version that knows format %d; this is headgate %s, "+
			"which knows formats up to %d: "+
			"start headgate %s or newer, or restore a backup that was taken before the upgrade", e.What,
		e.Record.Version,
		writer, e.Record.Floor, e.Program, e.Known, writer,
	)
}

// Upgrade returns the record of data after use by a program that knows a format: versions and floors are raised and
// never lowered. what names the data. Error: a [NewerError].
func (r Record) Upgrade(what string, known Format) (Record, error) {
	r.Version, r.Floor = max(r.Version, 1), max(r.Floor, 1)
	if r.Floor > known.Version {
		return r, &NewerError{
			What:    what,
			Record:  r,
			Known:   known.Version,
			Program: Program(),
		}
	}
	if known.Version > r.Version || known.Floor > r.Floor {
		r.Version, r.Floor, r.Writer = max(r.Version, known.Version), max(r.Floor, known.Floor), Program()
	}
	return r, nil
}

// Program returns the version of this program.
func Program() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

// File is the name of the record in a directory.
const File = "format.json"

// OpenDir creates a missing directory, checks its record and raises it to a format that this program knows. Errors: a
// [NewerError]; a record that cannot be read or written.
func OpenDir(dir string, known Format) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the data directory cannot be created: %w", err)
	}
	path := filepath.Join(dir, File)
	var found Record
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &found); err != nil {
			return fmt.Errorf("the format of %s cannot be read from %s: %w", dir, path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the format of %s cannot be read: %w", dir, err)
	}
	next, err := found.Upgrade("the data directory "+dir, known)
	if err != nil || next == found {
		return err
	}
	next.Writer = cmp.Or(next.Writer, Program())
	if err := write(path, next); err != nil {
		return fmt.Errorf("the format of %s cannot be recorded: %w", dir, err)
	}
	return nil
}

// write replaces the record atomically: after a crash there is the old one or the new one.
func write(path string, record Record) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), File+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	_ = dir.Sync() // not supported by every file system
	return dir.Close()
}
