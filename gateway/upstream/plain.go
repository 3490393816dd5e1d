package upstream

import (
	"io"

	"google.golang.org/grpc/encoding"
)

// plain is the compressor that channels ask for: one that no node knows, so that
// answers come as they are. Inside a data centre compressing costs more than it
// saves, and the edge compresses for its clients. It is there because grpc-go
// offers every compressor that is known to the process (the edge's, see
// chassis) unless it is told which: its AcceptCompressors, given none, offers
// all, contrary to its documentation (grpc-go 1.85, newAcceptedCompressionConfig).
type plain struct{}

// It must be known before anything runs, as grpc-go asks.
var plainName = func() string { encoding.RegisterCompressor(plain{}); return plain{}.Name() }()

// Name implements [encoding.Compressor].
func (plain) Name() string { return "headgate-plain" }

// Compress implements [encoding.Compressor]; nothing is.
func (plain) Compress(w io.Writer) (io.WriteCloser, error) { return asIs{w}, nil }

// Decompress implements [encoding.Compressor].
func (plain) Decompress(r io.Reader) (io.Reader, error) { return r, nil }

type asIs struct{ io.Writer }

func (asIs) Close() error { return nil }
