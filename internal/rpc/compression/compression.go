// Package compression brings Brotli and Zstandard to Connect, beside the gzip
// that Connect has itself.
//
// Readers and writers are pooled. A decompressor allocates its window and some tables,
// for any announced size and any reader: at most 32 KiB for gzip,
// [maxWindow] for Zstandard and 16 MiB for Brotli, which is its largest window (its 30-bit
// extension is refused). The output is produced while it is read; the caller bounds it.
//
// Sources: RFC 1952 (gzip), RFC 7932 (Brotli; §9.1 on windows), RFC 8878
// (Zstandard; §3.1.1.1.2 on windows).
package compression

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is the window in bytes that RFC 8878 §3.1.1.1.2 recommends every
	// decoder to support. A frame that needs more is refused.
	maxWindow = 8 << 20
	// brotliLevel is fast: an answer is compressed once and read once.
	brotliLevel = 4
)

// All returns the compressors of the edge, the cheapest to decode first.
func All() []connect.Compressor {
	return []connect.Compressor{connectgzip.New(), newZstd(), newBrotli()}
}

// encoder is what the libraries' writers have in common.
type encoder interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// decoder is what the libraries' readers have in common.
type decoder interface {
	io.Reader
	Reset(r io.Reader) error
}

// pooled implements [connect.Compressor] over a library's types.
type pooled struct {
	name       string
	newEncoder func() (encoder, error)
	newDecoder func() (decoder, error)
	encoders   sync.Pool
	decoders   sync.Pool
}

func newZstd() *pooled {
	return &pooled{
		name: connect.CompressionNameZstd,
		newEncoder: func() (encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		},
		newDecoder: func() (decoder, error) {
			return zstd.NewReader(nil,
				zstd.WithDecoderConcurrency(1), // no goroutines
				zstd.WithDecoderMaxWindow(maxWindow),
				zstd.WithDecoderMaxMemory(maxWindow), // a frame of a single segment has no other window
				zstd.WithDecodeBuffersBelow(0),       // decode as a stream, never the whole source in Reset
				zstd.WithDecoderLowmem(true),
			)
		},
	}
}

func newBrotli() *pooled {
	return &pooled{
		name:       connect.CompressionNameBr,
		newEncoder: func() (encoder, error) { return brotli.NewWriterLevel(nil, brotliLevel), nil },
		newDecoder: func() (decoder, error) { return brotli.NewReader(nil), nil },
	}
}

// Name implements [connect.Compressor].
func (p *pooled) Name() string { return p.name }

// Compress implements [connect.Compressor].
func (p *pooled) Compress(dst io.Writer) (io.WriteCloser, error) {
	e, ok := p.encoders.Get().(encoder)
	if !ok {
		var err error
		if e, err = p.newEncoder(); err != nil {
			return nil, fmt.Errorf("compression: %s: %w", p.name, err)
		}
	}
	e.Reset(dst)
	return &writer{pool: p, encoder: e}, nil
}

// Decompress implements [connect.Compressor].
func (p *pooled) Decompress(src io.Reader) (io.ReadCloser, error) {
	d, ok := p.decoders.Get().(decoder)
	if !ok {
		var err error
		if d, err = p.newDecoder(); err != nil {
			return nil, fmt.Errorf("compression: %s: %w", p.name, err)
		}
	}
	r := &reader{pool: p, decoder: d, source: source{src}}
	if err := d.Reset(&r.source); err != nil {
		return nil, fmt.Errorf("compression: %s: %w", p.name, err)
	}
	return r, nil
}

// source hides everything of a reader but Read. Decoders have shortcuts for readers that offer
// more: zstd's Reset immediately decodes a source with Bytes and Len, such as a
// [bytes.Buffer], into memory of the size that the frame announces.
type source struct{ reader io.Reader }

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) { return s.reader.Read(p) }

type writer struct {
	pool    *pooled
	encoder encoder
}

func (w *writer) Write(b []byte) (int, error) { return w.encoder.Write(b) }

// Close ends the stream. A writer that failed is not used again.
func (w *writer) Close() error {
	if err := w.encoder.Close(); err != nil {
		return fmt.Errorf("compression: %s: %w", w.pool.name, err)
	}
	w.encoder.Reset(io.Discard)
	w.pool.encoders.Put(w.encoder)
	return nil
}

type reader struct {
	pool    *pooled
	decoder decoder // nil: closed
	source  source
}

// Read implements [io.Reader].
func (r *reader) Read(b []byte) (int, error) {
	if r.decoder == nil {
		return 0, errClosed
	}
	return r.decoder.Read(b)
}

// Close returns the decoder to its pool, without the source. It may be called
// again.
func (r *reader) Close() error {
	d := r.decoder
	if d == nil {
		return nil
	}
	r.decoder, r.source.reader = nil, nothing{}
	if d.Reset(nothing{}) == nil {
		r.pool.decoders.Put(d)
	}
	return nil
}

// errClosed is returned by a closed reader, whose decoder may serve another call.
var errClosed = errors.New("compression: read after Close")

// nothing is an empty source, so that a pooled decoder refers to no other.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
