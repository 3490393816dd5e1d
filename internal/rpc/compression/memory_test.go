package compression_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"connectrpc.com/connect/v2"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/headgate/headgate/internal/rpc/compression"
)

const (
	// messageBound is how many bytes the tests read at most of what is decompressed,
	// as an edge with a bound of 1 MiB does.
	messageBound = 1<<20 + 1
	// memoryBound is how many bytes a decompressor may allocate for one message: the
	// largest window of all, what it grew from, and tables.
	memoryBound = 40 << 20
)

// sources are the readers that a message comes from: Connect gives a bytes.Buffer, the
// REST edge a bytes.Reader, grpc-go its own reader.
var sources = map[string]func(t testing.TB, data []byte) io.Reader{
	"bytes.Buffer": func(_ testing.TB, data []byte) io.Reader { return bytes.NewBuffer(bytes.Clone(data)) },
	"bytes.Reader": func(_ testing.TB, data []byte) io.Reader { return bytes.NewReader(data) },
	"bufio.Reader": func(_ testing.TB, data []byte) io.Reader { return bufio.NewReader(bytes.NewReader(data)) },
	"one byte a read": func(
		_ testing.TB, data []byte,
	) io.Reader {
		return iotest.OneByteReader(bytes.NewReader(data))
	},
	"data with its end": func(
		_ testing.TB, data []byte,
	) io.Reader {
		return iotest.DataErrReader(bytes.NewReader(data))
	},
	"io.Pipe": func(t testing.TB, data []byte) io.Reader {
		r, w := io.Pipe()
		t.Cleanup(func() { _ = r.Close() })
		go func() {
			_, err := w.Write(data)
			_ = w.CloseWithError(err)
		}()
		return r
	},
}

// promise is a zstd frame of 18 bytes whose content is 60 GiB by its header.
var promise = []byte("\x28\xb5\x2f\xfd\xc0\x68\x00\x00\x00\x00\x0f\x00\x00\x00\x03\x00\x10\x00")

// singleSegment returns a zstd frame without a window that announces size bytes and
// holds one block of zeros.
func singleSegment(size uint32) []byte {
	frame := binary.LittleEndian.AppendUint32([]byte("\x28\xb5\x2f\xfd\xa0"), size)
	return append(frame, 0x03, 0x00, 0x10, 0x00) // the last block: 128 KiB of one byte
}

// hostile returns inputs that announce or hold more than a server reads, by the name of their
// compression. They are made once per process: compressing the zeros takes seconds under the race
// detector, and with -short there are fewer of them.
func hostile(t testing.TB) map[string]map[string][]byte {
	t.Helper()
	if hostileInputs == nil {
		hostileInputs = makeHostile(t)
	}
	return hostileInputs
}

var hostileInputs map[string]map[string][]byte // of sequential tests

func makeHostile(t testing.TB) map[string]map[string][]byte {
	zeros := make([]byte, 64<<20)
	if testing.Short() {
		zeros = zeros[:4*messageBound]
	}
	var wide, deep bytes.Buffer
	e, err := zstd.NewWriter(&wide, zstd.WithWindowSize(256<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{e, brotli.NewWriterOptions(&deep, brotli.WriterOptions{Quality: 5, LGWin: 24})} {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var empty, named bytes.Buffer
	for range 2_000 {
		if err := gzip.NewWriter(&empty).Close(); err != nil {
			t.Fatal(err)
		}
	}
	named.WriteString("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff")
	named.Write(bytes.Repeat([]byte("n"), messageBound))

	inputs := map[string]map[string][]byte{
		"gzip": {"empty members": empty.Bytes(), "an endless name": named.Bytes()},
		"zstd": {
			"a promise of 60 GiB":              promise,
			"the promise again and again":      bytes.Repeat(promise, 1_000),
			"one segment of 4 GiB":             singleSegment(1<<32 - 1),
			"one segment of 2 GiB":             singleSegment(1 << 31),
			"one segment of 8 MiB":             singleSegment(8 << 20),
			"windows of 8 MiB for a byte each": bytes.Repeat([]byte("\x28\xb5\x2f\xfd\x00\x68\x0b\x00\x00x"), 1_000),
			"a window of 256 MiB":              wide.Bytes(),
			"a window of 3.75 TiB":             []byte("\x28\xb5\x2f\xfd\x00\xff\x03\x00\x10\x00"),
			"a skipped frame of 4 GiB":         []byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"),
			"skipped frames":                   bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 2_000),
			"a dictionary that is not there":   []byte("\x28\xb5\x2f\xfd\x03\x68\x01\x02\x03\x04\x03\x00\x10\x00"),
			"frames without content, then junk": append(
				bytes.Repeat([]byte("\x28\xb5\x2f\xfd\x00\x68\x01\x00\x00"), 2_000), "junk"...,
			),
		},
		"br": {
			"a window of 16 MiB":           deep.Bytes(),
			"a window of 1 GiB":            []byte("\x11\x1e\x03\x00\x00\x00\x00\x00\x00\x00\x00"),
			"a block that never comes":     []byte("\xcf\xff\xff\xff\x07\x00\x00\x00"),
			"metadata of 16 MiB":           []byte("\x0d\x3f\xff\xff\xff\x00"),
			"a block of literals, cut off": []byte("\x8b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		},
	}
	for _, c := range compression.All() {
		inputs[c.Name()]["zeros"] = compress(t, c, zeros)
		inputs[c.Name()]["nothing"] = nil
	}
	return inputs
}

// readBounded decompresses as much of src as a server reads, and returns it with the
// bytes that this allocated.
func readBounded(c connect.Compressor, src io.Reader) (out []byte, allocated uint64, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := c.Decompress(src)
	if err == nil {
		out, err = io.ReadAll(io.LimitReader(r, messageBound))
		_ = r.Close()
	}
	runtime.ReadMemStats(&after)
	return out, after.TotalAlloc - before.TotalAlloc, err
}

func TestDecompress_MemoryIsBoundedWhateverTheReader(t *testing.T) {
	if testing.Short() {
		t.Skip(
			"it measures memory, on one goroutine, for a minute under the race detector; the seeds of the fuzz " +
				"targets run there",
		)
	}
	for name, inputs := range hostile(t) {
		for input, data := range inputs {
			t.Run(name+"/"+input, func(t *testing.T) {
				c := one(name) // its pool is empty
				same(t, c, name, data)
				same(t, c, name, data)
			})
		}
	}
}

// same checks that every reader gives the same bytes within the memory bound, or fails
// as the others do. The bytes before a failure may differ, and so a failure behind the
// bound may be seen or not.
func same(t testing.TB, c connect.Compressor, label string, data []byte) {
	t.Helper()
	want, _, wantErr := readBounded(c, sources["bytes.Reader"](t, data))
	for reader, source := range sources {
		got, allocated, err := readBounded(c, source(t, data))
		cut := len(got) == messageBound || len(want) == messageBound
		if !cut && (err == nil) != (wantErr == nil) || err == nil && wantErr == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v by %s; %d bytes, %v by bytes.Reader", label, len(got), err, reader, len(want),
				wantErr)
		}
		if allocated > memoryBound {
			t.Errorf("%s: %d bytes allocate %d MiB by %s", label, len(data), allocated>>20, reader)
		}
	}
}

// one returns a compressor of that name with separate pools.
func one(name string) connect.Compressor {
	for _, c := range compression.All() {
		if c.Name() == name {
			return c
		}
	}
	panic(name)
}

func fuzz(f *testing.F, name string) {
	for _, data := range hostile(f)[name] {
		if len(data) < 4096 {
			f.Add(data)
		}
	}
	c := one(name)
	f.Add(compress(f, c, []byte("a view of wallets, and of wallets again")))
	f.Fuzz(func(t *testing.T, data []byte) { same(t, c, name, data) })
}

func FuzzGzip(f *testing.F)   { fuzz(f, connect.CompressionNameGzip) }
func FuzzZstd(f *testing.F)   { fuzz(f, connect.CompressionNameZstd) }
func FuzzBrotli(f *testing.F) { fuzz(f, connect.CompressionNameBr) }

func TestReader_AClosedOneDoesNotReadForOthers(t *testing.T) {
	for _, c := range compression.All() {
		data := compress(t, c, []byte("one"))
		r, err := c.Decompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: closed again: %v", c.Name(), err)
		}
		if n, err := r.Read(make([]byte, 8)); n > 0 || err == nil {
			t.Errorf("%s: a closed reader reads %d bytes, %v", c.Name(), n, err)
		}
		first, _ := c.Decompress(bytes.NewReader(data))
		second, _ := c.Decompress(bytes.NewReader(data))
		for _, r := range []io.Reader{first, second} {
			if got, err := io.ReadAll(r); err != nil || string(got) != "one" {
				t.Errorf("%s: %q, %v after a reader was closed twice", c.Name(), got, err)
			}
		}
	}
}
