package rpc

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/internal/rpc/compression"
)

// CompressMinBytes is the size below which compressing an answer costs more than
// it saves.
const CompressMinBytes = 512

// preferred are the compressors by preference. grpc-go registers them per process, before any
// server runs; upstream channels do not request them.
var preferred = func() (names []string) {
	for _, c := range compression.All() {
		encoding.RegisterCompressor(grpcCompressor{c})
		names = append(names, c.Name())
	}
	return names
}()

// grpcCompressor adapts a compressor of Connect to grpc-go's interface.
type grpcCompressor struct{ connect.Compressor }

// Compress implements [encoding.Compressor].
func (c grpcCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return c.Compressor.Compress(w)
}

// Decompress implements [encoding.Compressor]. It does not fail, and neither do its readers:
// grpc-go would end the call as INTERNAL before its handler could report the client's fault. A
// message that cannot be decompressed ends with [undecompressed] instead.
func (c grpcCompressor) Decompress(r io.Reader) (io.Reader, error) {
	plain, err := c.Compressor.Decompress(r)
	if err != nil {
		return bytes.NewReader(undecompressed), nil //nolint:nilerr // see above
	}
	return &untilEnd{plain: plain}, nil
}

// undecompressed stands at the end of a message that could not be decompressed. No client can guess
// it: it begins with random bytes. It ends with bytes that are not protobuf, for clients in this
// process, which do not check for it.
var undecompressed = func() []byte {
	mark := make([]byte, 16, 32)
	_, _ = rand.Read(mark) // crypto/rand does not fail
	return append(mark, bytes.Repeat([]byte{0xff}, 16)...)
}()

// isUndecompressed reports whether a message ends with [undecompressed].
func isUndecompressed(data mem.BufferSlice) bool {
	missing := len(undecompressed)
	for i := len(data) - 1; i >= 0 && missing > 0; i-- {
		part := data[i].ReadOnlyData()
		n := min(len(part), missing)
		if !bytes.Equal(part[len(part)-n:], undecompressed[missing-n:missing]) {
			return false
		}
		missing -= n
	}
	return missing == 0
}

// untilEnd returns a pooled reader to its pool when the reader has been read, or when grpc-go
// gives up and closes it.
type untilEnd struct {
	plain io.ReadCloser // nil: it has been returned
	mark  []byte        // the rest of undecompressed
}

// Read implements [io.Reader].
func (r *untilEnd) Read(p []byte) (int, error) {
	if r.plain == nil {
		if len(r.mark) == 0 {
			return 0, io.EOF
		}
		n := copy(p, r.mark)
		r.mark = r.mark[n:]
		return n, nil
	}
	n, err := r.plain.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		_ = r.Close() // its source is the call's
	case err != nil:
		_ = r.Close()
		r.mark, err = undecompressed, nil
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

// compress selects the compression of a response before it is sent: one that the client accepts, if
// the message reports its size (Len, in bytes), as an edge's messages do, and is large. A service's
// responses are not compressed. A stream's messages, of which grpc-go compresses all or none, are
// compressed as the request was, since most are small.
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

// accepted returns the first of preferred that the client accepts.
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
