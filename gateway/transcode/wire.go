package transcode

import "google.golang.org/protobuf/encoding/protowire"

// ConsumeField returns the number and wire type of the first field of b, and the lengths of its tag
// and its value in bytes. A size below 0 means that the field is malformed. Fields with a tag of
// one byte and a number or a short text, which most requests have, are read without further calls.
func ConsumeField(b []byte) (number protowire.Number, wireType protowire.Type, tag, size int) {
	if len(b) >= 2 && b[0] < 0x80 && b[1] < 0x80 && b[0]>>3 > 0 {
		switch number, wireType = protowire.Number(b[0]>>3), protowire.Type(b[0]&7); wireType {
		case protowire.VarintType:
			return number, wireType, 1, 1
		case protowire.BytesType:
			if size = 1 + int(b[1]); size < len(b) {
				return number, wireType, 1, size
			}
		}
	}
	if number, wireType, tag = protowire.ConsumeTag(b); tag < 0 {
		return 0, 0, 0, tag
	}
	return number, wireType, tag, protowire.ConsumeFieldValue(number, wireType, b[tag:])
}
