package backup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream's file is an archive of NATS's backup format 2, compressed with S2, without its
// first entry (the stream's state), which the manifest has.

// message is a stored message.
type message struct {
	subject      string
	sequence     uint64
	time         time.Time
	header, data []byte
}

func newMessage(raw *jetstream.RawStreamMsg) message {
	return message{
		subject:  raw.Subject,
		sequence: raw.Sequence,
		time:     raw.Time,
		header:   encodeHeader(raw.Header),
		data:     raw.Data,
	}
}

func (m *message) size() int { return len(m.subject) + len(m.header) + len(m.data) }

func (m *message) equal(other *message) bool {
	return m.subject == other.subject && m.sequence == other.sequence && m.time.Equal(other.time) &&
		bytes.Equal(m.header, other.header) && bytes.Equal(m.data, other.data)
}

// encodeHeader returns headers as they are on the wire (NATS ADR-4), in the order of their
// names.
func encodeHeader(header nats.Header) []byte {
	if len(header) == 0 {
		return nil
	}
	var out bytes.Buffer
	out.WriteString("NATS/1.0\r\n")
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			out.WriteString(name + ": " + value + "\r\n")
		}
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

// writer writes a stream's file.
type writer struct {
	path    string
	file    *os.File
	sum     hash.Hash
	buffer  *bufio.Writer
	packed  *s2.Writer
	entries *archive.Writer

	first, last, messages, bytes uint64
}

func create(dir, name string) (*writer, error) {
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{path: path, file: file, sum: sha256.New()}
	w.buffer = bufio.NewWriterSize(io.MultiWriter(file, w.sum), 1<<20)
	w.packed = s2.NewWriter(w.buffer, s2.WriterConcurrency(1))
	w.entries = archive.NewWriter(w.packed)
	return w, nil
}

// add appends a message, whose sequence is above that of the last one.
func (w *writer) add(m message) error {
	if err := writeMessage(w.entries, &m); err != nil {
		return fmt.Errorf("backup: write %s: %w", w.path, err)
	}
	if w.messages == 0 {
		w.first = m.sequence
	}
	w.last = m.sequence
	w.messages++
	w.bytes += uint64(m.size())
	return nil
}

func writeMessage(to *archive.Writer, m *message) error {
	return errors.Join(
		to.WriteHeader(&archive.Header{
			Name:        m.subject,
			Sequence:    m.sequence,
			Timestamp:   m.time.UnixNano(),
			HeaderSize:  int64(len(m.header)),
			PayloadSize: int64(len(m.data)),
		}),
		writeAll(to, m.header), writeAll(to, m.data))
}

func writeAll(to io.Writer, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	_, err := to.Write(text)
	return err
}

// close ends the file, through to the disk, and describes it.
func (w *writer) close() (File, error) {
	err := errors.Join(
		w.entries.WriteHeader(&archive.Header{}), // end of backup
		w.entries.Close(), w.packed.Close(), w.buffer.Flush(), w.file.Sync(), w.file.Close())
	if err != nil {
		return File{}, fmt.Errorf("backup: write %s: %w", w.path, err)
	}
	info, err := os.Stat(w.path)
	if err != nil {
		return File{}, err
	}
	return File{Name: filepath.Base(w.path), Size: info.Size(), SHA256: hex.EncodeToString(w.sum.Sum(nil))}, nil
}

// abandon closes a file that stays incomplete.
func (w *writer) abandon() { _ = w.file.Close() }

// reader reads a stream's file.
type reader struct {
	file    *os.File
	entries *archive.Reader
}

func open(dir, name string) (*reader, error) {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &reader{file: file, entries: archive.NewReader(s2.NewReader(bufio.NewReaderSize(file, 1<<20)))}, nil
}

// next returns the next message, or io.EOF at the end of the backup.
func (r *reader) next() (*message, error) {
	entry, err := r.entries.Next()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, r.file.Name(), noEOF(err))
	case entry.Sequence == 0 && entry.Name == "":
		return nil, io.EOF
	case entry.HeaderSize+entry.PayloadSize > maxMessage:
		return nil, fmt.Errorf("%w: %s has a message of %d bytes", ErrDamaged, r.file.Name(),
			entry.HeaderSize+entry.PayloadSize)
	}
	text := make([]byte, entry.HeaderSize+entry.PayloadSize)
	if _, err := io.ReadFull(r.entries, text); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, r.file.Name(), noEOF(err))
	}
	return &message{
		subject:  entry.Name,
		sequence: entry.Sequence,
		time:     time.Unix(0, entry.Timestamp),
		header:   text[:entry.HeaderSize:entry.HeaderSize],
		data:     text[entry.HeaderSize:],
	}, nil
}

// maxMessage bounds a message in a file; NATS takes no payload above 64 MiB.
const maxMessage = 64 << 20

// noEOF turns an unexpected end of a file into a separate error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reader) close() { _ = r.file.Close() }

// describe returns a file's size and checksum.
func describe(dir, name string) (File, error) {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return File{}, err
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	return File{Name: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// check compares a file with its size and checksum. Errors wrap [ErrDamaged].
func (f File) check(ctx context.Context, dir string) error {
	if filepath.Base(f.Name) != f.Name {
		return fmt.Errorf("%w: %s names the file %q", ErrDamaged, manifestFile, f.Name)
	}
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	size, err := io.Copy(sum, contextReader{ctx, file})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrDamaged, f.Name, err)
	case size != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%w: %s differs from its checksum in %s", ErrDamaged, f.Name, manifestFile)
	}
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx  context.Context //nolint:containedctx // of one call
	from io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	return r.from.Read(p)
}
