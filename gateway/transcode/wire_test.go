package transcode_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/gateway/transcode"
)

// FuzzConsumeField compares the field with the one that protowire reads.
func FuzzConsumeField(f *testing.F) {
	for _, seed := range []string{
		"", "\x0a", "\x0a\x00", "\x0a\x03abc", "\x0a\x04abc", "\x08\x7f", "\x08\x80\x01", "\x00\x01", "\x0b\x0c",
		"\x0d\x01\x02\x03\x04", "\x80\x80\x80\x80\x10\x01", "\x0a\x80\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		number, wireType, tag, size := transcode.ConsumeField(b)
		wantNumber, wantType, wantTag := protowire.ConsumeTag(b)
		wantSize := wantTag
		if wantTag >= 0 {
			wantSize = protowire.ConsumeFieldValue(wantNumber, wantType, b[wantTag:])
		}
		if (size < 0) != (wantSize < 0) {
			t.Fatalf("%x: size %d, want %d", b, size, wantSize)
		}
		if size >= 0 && (number != wantNumber || wireType != wantType || tag != wantTag || size != wantSize) {
			t.Fatalf("%x: field %d of type %d, %d and %d bytes; want %d of type %d, %d and %d", b, number, wireType,
				tag, size, wantNumber, wantType, wantTag, wantSize)
		}
	})
}
