// Package compression brings Brotli and Zstandard to Connect, beside the gzip
// that Connect has itself.
//
// Readers and writers are pooled. Their memory is bounded: a stream that asks
// for a larger window than [maxWindow] is refused, and Connect bounds what comes
// out of it.
//
// Sources: RFC 7932 (Brotli), RFC 8878 (Zstandard; §3.1.1.1.2 on windows).
package compression

import (
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is what RFC 8878 asks every decoder to take, and no more.
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
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
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
	if err := d.Reset(src); err != nil {
		return nil, fmt.Errorf("compression: %s: %w", p.name, err)
	}
	return &reader{pool: p, decoder: d}, nil
}

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
	decoder decoder
}

func (r *reader) Read(b []byte) (int, error) { return r.decoder.Read(b) }

// Close gives the decoder back without the source that it read.
func (r *reader) Close() error {
	if r.decoder.Reset(nothing{}) == nil {
		r.pool.decoders.Put(r.decoder)
	}
	return nil
}

// nothing is an empty source, so that a pooled decoder holds on to no other.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
