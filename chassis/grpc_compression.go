package chassis

import (
	"errors"
	"io"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis/compression"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// CompressMinBytes is the size below which compressing an answer costs more than
// it saves.
const CompressMinBytes = 512

// preferred are the compressors by preference. grpc-go knows them process-wide,
// and asks that they be made known before anything runs; upstream channels ask
// for none of them.
var preferred = func() (names []string) {
	for _, c := range compression.All() {
		encoding.RegisterCompressor(grpcCompressor{c})
		names = append(names, c.Name())
	}
	return names
}()

// grpcCompressor is Connect's as grpc-go wants it.
type grpcCompressor struct{ connect.Compressor }

// Compress implements [encoding.Compressor].
func (c grpcCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return c.Compressor.Compress(w)
}

// Decompress implements [encoding.Compressor].
func (c grpcCompressor) Decompress(r io.Reader) (io.Reader, error) {
	plain, err := c.Compressor.Decompress(r)
	if err != nil {
		return nil, err
	}
	return &untilEnd{plain}, nil
}

// untilEnd gives a pooled reader back when it has been read, or, as grpc-go does
// when it gives up, closed.
type untilEnd struct{ plain io.ReadCloser }

func (r *untilEnd) Read(p []byte) (int, error) {
	if r.plain == nil {
		return 0, io.EOF
	}
	n, err := r.plain.Read(p)
	if errors.Is(err, io.EOF) {
		_ = r.Close() // its source is the call's
	}
	return n, err
}

// Close implements [io.Closer].
func (r *untilEnd) Close() error {
	if r.plain == nil {
		return nil
	}
	plain := r.plain
	r.plain = nil
	return plain.Close()
}

// compress chooses the compression of an answer before it is sent: what the client
// takes, if the message says that it is large (Len, in bytes), as an edge's do; a
// service's answers stay as they are. A stream's answers, which grpc-go compresses all
// or none, are compressed as the request was: most are small, and a client that takes
// compression has not asked for it.
func (s *grpcStream) compress(msg any) {
	if !s.single {
		return
	}
	name := encoding.Identity
	if sized, ok := msg.(interface{ Len() int }); ok && sized.Len() >= CompressMinBytes {
		name = s.accepted()
	}
	_ = grpc.SetSendCompressor(s.grpc.Context(), name) // it was chosen from what is known
}

// accepted returns the first of our compressors that the client takes.
func (s *grpcStream) accepted() string {
	theirs, err := grpc.ClientSupportedCompressors(s.grpc.Context())
	if err != nil {
		return encoding.Identity
	}
	for _, ours := range preferred {
		for _, name := range theirs {
			if name == ours {
				return name
			}
		}
	}
	return encoding.Identity
}
