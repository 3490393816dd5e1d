package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Format is the version of the backups that this version writes, and the newest that it reads.
const Format = 1

// Names of files in a backup.
const (
	manifestFile   = "manifest.json"
	incompleteFile = "INCOMPLETE"
	positionsFile  = "positions.json"
	laterFile      = "workflows-later.s2"
)

// Errors of reading a backup.
var (
	// ErrIncomplete: the directory has no manifest, or was not completed.
	ErrIncomplete = errors.New("the backup is incomplete")
	// ErrNewer: the backup was written by a later version.
	ErrNewer = errors.New("the backup is of a newer format")
	// ErrDamaged: a file differs from the manifest.
	ErrDamaged = errors.New("the backup is damaged")
)

// Manifest describes a backup.
type Manifest struct {
	// Format is the version of the backup's form; see [Format].
	Format int `json:"format"`
	// Version is the version of the program that wrote it.
	Version string `json:"version"`
	// Began and Ended are when it was taken.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Epoch identifies the journal, and Last is the sequence of its last event in the backup.
	Epoch int64  `json:"epoch"`
	Last  uint64 `json:"last"`
	// Streams are the streams and buckets, in the order in which they were read.
	Streams []Stream `json:"streams"`
	// Files are the other files.
	Files []File `json:"files"`
	// Omitted are the streams that the backup does not have, with the reason.
	Omitted map[string]string `json:"omitted"`
}

// Stream is a stream or bucket in a backup.
type Stream struct {
	File

	// Stream is its name.
	Stream string `json:"stream"`
	// Config is its configuration.
	Config jetstream.StreamConfig `json:"config"`
	// First and Last are the sequences of its first and last message; Next is that of the
	// next message that the stream would have stored.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Next  uint64 `json:"next"`
	// Messages and Bytes count the messages in the file, and the bytes of their subjects,
	// headers and data.
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// File is a file with its checksum.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// ReadManifest reads the manifest of a complete backup. Errors wrap [ErrIncomplete] and
// [ErrNewer].
func ReadManifest(dir string) (*Manifest, error) {
	if _, err := os.Stat(filepath.Join(dir, incompleteFile)); err == nil {
		return nil, fmt.Errorf("%w: %s has a file %s: take another backup", ErrIncomplete, dir, incompleteFile)
	}
	text, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no %s", ErrIncomplete, dir, manifestFile)
	}
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestFile, err)
	}
	switch {
	case m.Format < 1:
		return nil, fmt.Errorf("%w: %s has format %d", ErrDamaged, manifestFile, m.Format)
	case m.Format > Format:
		return nil, fmt.Errorf(
			"%w: it has format %d, and this version reads up to %d: restore it with headgate %s or later", ErrNewer,
			m.Format, Format, m.Version,
		)
	}
	return &m, nil
}

// files are all files but the manifest.
func (m *Manifest) files() []File {
	var all []File
	for _, stream := range m.Streams {
		all = append(all, stream.File)
	}
	return append(all, m.Files...)
}

// stream returns the stream with the name.
func (m *Manifest) stream(name string) (Stream, bool) {
	for _, stream := range m.Streams {
		if stream.Stream == name {
			return stream, true
		}
	}
	return Stream{}, false
}

// write stores the manifest in dir.
func (m *Manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	partial := filepath.Join(dir, manifestFile+".partial")
	if err := writeSynced(partial, append(text, '\n')); err != nil {
		return err
	}
	return os.Rename(partial, filepath.Join(dir, manifestFile))
}

// writeSynced writes a file that only its owner can read, through to the disk.
func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}
