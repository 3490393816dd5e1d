package response

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Size returns the bytes that a plain JSON value takes as a google.protobuf.Value, as
// structpb.NewValue encodes it. Values of other types count as their text.
func Size(value any) int {
	switch v := value.(type) {
	case string:
		return Item(len(v))
	case []byte:
		return Item((len(v) + 2) / 3 * 4)
	case bool, nil:
		return 1 + 1
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
		return 1 + 8
	case []any:
		size := 0
		for _, item := range v {
			size += Item(Size(item))
		}
		return Item(size)
	case map[string]any:
		return Item(Object(v))
	default:
		return Item(len(fmt.Sprint(v)))
	}
}

// Object returns the bytes that an object takes as a google.protobuf.Struct.
func Object(members map[string]any) int {
	size := 0
	for name, value := range members {
		size += Member(name, value)
	}
	return size
}

// Member returns the bytes that a member adds to a google.protobuf.Struct.
func Member(name string, value any) int {
	return Item(Item(len(name)) + Item(Size(value)))
}

// Item returns the bytes that a message, or a text, of a size takes in a field with a
// number below 16: its tag, its length and itself.
func Item(size int) int { return 1 + protowire.SizeBytes(size) }
