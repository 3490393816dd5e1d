package main

import (
	"io"

	"google.golang.org/grpc/encoding"
)

// plain is the compressor that channels ask for: one that no server knows, so that answers
// come as they are. It is there because grpc-go offers every compressor that is known to the
// process (those of the product's edge) unless it is configured: its AcceptCompressors,
// given none, offers all, contrary to its documentation (grpc-go 1.85,
// newAcceptedCompressionConfig).
type plain struct{}

// It must be known before anything runs, as grpc-go asks.
var plainName = func() string { encoding.RegisterCompressor(plain{}); return plain{}.Name() }()

// Name implements [encoding.Compressor].
func (plain) Name() string { return "bench-plain" }

// Compress implements [encoding.Compressor]; nothing is.
func (plain) Compress(w io.Writer) (io.WriteCloser, error) { return asIs{w}, nil }

// Decompress implements [encoding.Compressor].
func (plain) Decompress(r io.Reader) (io.Reader, error) { return r, nil }

type asIs struct{ io.Writer }

func (asIs) Close() error { return nil }
