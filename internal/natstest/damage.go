package natstest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsserver"
)

// StartStop is StartIn with a function that stops the server before the test ends, so that its
// files can be damaged.
func StartStop(t testing.TB, dir string) (js jetstream.JetStream, stop func()) {
	t.Helper()
	embedded, err := natsserver.Start(t.Context(), natsserver.Config{Dir: dir, LazySync: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := embedded.Connect(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	js = open(t, conn, 1)
	stop = sync.OnceFunc(func() {
		conn.Close()
		embedded.Close()
	})
	t.Cleanup(stop)
	return js, stop
}

// StreamDir returns where a stopped server stores a stream of its default account.
func StreamDir(dir, stream string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream)
}

// Blocks returns the files of a stream's messages, in order.
func Blocks(t testing.TB, dir, stream string) []string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(StreamDir(dir, stream), "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	slices.SortFunc(blocks, func(a, b string) int { // 2.blk before 10.blk
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		if a < b {
			return -1
		}
		return 1
	})
	return blocks
}

// DropIndex removes what a stopped server knows of a stream's messages beside them, as a kill
// leaves it: the server reads the messages again.
func DropIndex(t testing.TB, dir, stream string) {
	t.Helper()
	if err := os.Remove(filepath.Join(StreamDir(dir, stream), "msgs", "index.db")); err != nil {
		t.Fatal(err)
	}
}

// altered is how many bytes Alter changes.
const altered = 64

// Alter changes up to 64 bytes of a file at an offset; below 0: from its end.
func Alter(t testing.TB, path string, offset int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if offset < 0 {
		end, err := file.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		offset += end
	}
	content := make([]byte, altered)
	read, err := file.ReadAt(content, offset)
	if err != nil && (read == 0 || !errors.Is(err, io.EOF)) {
		t.Fatal(err)
	}
	content = content[:read]
	for n := range content {
		content[n] ^= 0x5a
	}
	if _, err := file.WriteAt(content, offset); err != nil {
		t.Fatal(err)
	}
}

// AlterMessage changes 64 bytes of the message of a stream that has a text, which must be one
// message's alone. Where the index stays, the server loses that message and finds no message of
// its block by subject; without it, it loses the rest of the block.
func AlterMessage(t testing.TB, dir, stream, text string) {
	t.Helper()
	path, at := find(t, dir, stream, text)
	Alter(t, path, at)
}

// RemoveBlock removes the block that has a text.
func RemoveBlock(t testing.TB, dir, stream, text string) {
	t.Helper()
	path, _ := find(t, dir, stream, text)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, dir, stream, text string) (path string, at int64) {
	t.Helper()
	for _, path := range Blocks(t, dir, stream) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(content, []byte(text)); at >= 0 {
			return path, int64(at)
		}
	}
	t.Fatalf("no message of %s has %q", stream, text)
	return "", 0
}

// fillers of fillerBytes each are more than a block of a stream's files.
const fillers, fillerBytes = 3, 3_500_000

// NextBlock fills the current block of files, so that the next message to the subject is in another one.
func NextBlock(t testing.TB, js jetstream.JetStream, subject string) {
	t.Helper()
	for range fillers {
		if _, err := js.Publish(t.Context(), subject, make([]byte, fillerBytes)); err != nil {
			t.Fatal(err)
		}
	}
}
