package main

import (
	"io"

	"google.golang.org/grpc/encoding"
)

// plain is the only compressor that the benchmarks' channels accept. No server knows it, so that responses are not
// compressed. Without it grpc-go accepts every registered compressor, which includes those of the product's edge:
// AcceptCompressors without arguments accepts all of them, contrary to its documentation (grpc-go 1.85,
// newAcceptedCompressionConfig).
type plain struct{}

// plainName is the name of plain, which is registered during initialization, as grpc-go requires.
var plainName = func() string { encoding.RegisterCompressor(plain{}); return plain{}.Name() }()

// Name implements [encoding.Compressor].
func (plain) Name() string { return "bench-plain" }

// Compress implements [encoding.Compressor]. It does not compress.
func (plain) Compress(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }

// Decompress implements [encoding.Compressor].
func (plain) Decompress(r io.Reader) (io.Reader, error) { return r, nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
