package compression_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/rpc/compression"
)

func compress(t interface{ Fatal(...any) }, c connect.Compressor, data []byte) []byte {
	var out bytes.Buffer
	w, err := c.Compress(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decompress(c connect.Compressor, data []byte) ([]byte, error) {
	r, err := c.Decompress(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	return out, errors.Join(err, r.Close())
}

func TestCompression_RoundTrips(t *testing.T) {
	for _, c := range compression.All() {
		t.Run(c.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				data := rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(t, "data")
				if got, err := decompress(c, compress(t, c, data)); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%x comes back as %x, %v", data, got, err)
				}
			})
		})
	}
}

func TestDecoder_PooledOneForgetsABrokenStream(t *testing.T) {
	text := []byte(strings.Repeat("a view of wallets ", 500))
	for _, c := range compression.All() {
		whole := compress(t, c, text)
		if len(whole) > len(text)/4 {
			t.Errorf("%s makes %d bytes of %d", c.Name(), len(whole), len(text))
		}
		for range 20 {
			if _, err := decompress(c, whole[:len(whole)/2]); err == nil {
				t.Fatalf("%s: half a stream is taken for a whole", c.Name())
			}
			if _, err := decompress(c, []byte("not compressed at all")); err == nil {
				t.Fatalf("%s: text is taken for a stream", c.Name())
			}
			if got, err := decompress(c, whole); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%s: after a broken stream: %v", c.Name(), err)
			}
		}
	}
}
