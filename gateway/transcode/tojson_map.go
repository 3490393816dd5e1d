package transcode

import (
	"hash/maphash"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// appendEntry writes one entry of a map. A duplicate key is left to protojson.
func (f *field) appendEntry(dst, wire []byte, keys *keySet, depth int) (_, rest []byte, err error) {
	entry, n := protowire.ConsumeBytes(wire)
	if n < 0 {
		return dst, wire, f.malformed()
	}
	rest = wire[n:]
	key, value, err := f.splitEntry(entry)
	if err != nil {
		return dst, rest, err
	}
	start := len(dst)
	if key == nil {
		dst = appendZeroKey(dst, f.key)
	} else if f.key.kind == protoreflect.StringKind || f.key.wireType == protowire.Fixed64Type || is64(f.key.kind) {
		dst, _, err = f.key.appendOne(dst, key, depth)
	} else {
		dst = append(dst, '"')
		dst, _, err = f.key.appendOne(dst, key, depth)
		dst = append(dst, '"')
	}
	if err != nil {
		return dst, rest, err
	}
	if !keys.add(dst[start:]) {
		return dst, rest, errRare
	}
	dst = append(dst, ':')
	if value == nil {
		if f.val.message != nil {
			dst, err = f.val.message.appendJSON(dst, nil, depth+1)
			return dst, rest, err
		}
		return appendZero(dst, f.val), rest, nil
	}
	dst, _, err = f.val.appendOne(dst, value, depth)
	return dst, rest, err
}

// is64 reports whether JSON quotes numbers of the kind.
func is64(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind:
		return true
	}
	return false
}

// splitEntry returns the bytes of the key and of the value, nil if absent.
func (f *field) splitEntry(entry []byte) (key, value []byte, err error) {
	for len(entry) > 0 {
		number, wireType, n := consumeTag(entry)
		if n < 0 {
			return nil, nil, f.malformed()
		}
		m := protowire.ConsumeFieldValue(number, wireType, entry[n:])
		if m < 0 {
			return nil, nil, f.malformed()
		}
		bytes := entry[n : n+m : n+m]
		entry = entry[n+m:]
		switch {
		case number == 1 && wireType == f.key.wireType:
			if key != nil {
				return nil, nil, errRare
			}
			key = bytes
		case number == 2 && wireType == f.val.wireType:
			if value != nil {
				return nil, nil, errRare
			}
			value = bytes
		}
	}
	return key, value, nil
}

func appendZeroKey(dst []byte, f *field) []byte {
	switch f.kind {
	case protoreflect.StringKind:
		return append(dst, `""`...)
	case protoreflect.BoolKind:
		return append(dst, `"false"`...)
	}
	return append(dst, `"0"`...)
}

// appendZero writes the zero value of a scalar.
func appendZero(dst []byte, f *field) []byte {
	switch f.kind {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return append(dst, `""`...)
	case protoreflect.DoubleKind, protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return append(dst, '0')
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return append(dst, `"0"`...)
	}
	return f.appendVarint(dst, 0)
}

// keySet detects duplicate keys.
type keySet struct {
	count  int
	hashes [32]uint64
	more   map[uint64]struct{}
}

var keySeed = maphash.MakeSeed()

func (k *keySet) reset() { k.count, k.more = 0, nil }

// add reports whether the key is new. A hash collision, of probability 2^-64, counts as a
// duplicate, which only costs time.
func (k *keySet) add(key []byte) bool {
	h := maphash.Bytes(keySeed, key)
	if k.more != nil {
		if _, known := k.more[h]; known {
			return false
		}
		k.more[h] = struct{}{}
		return true
	}
	for _, known := range k.hashes[:k.count] {
		if known == h {
			return false
		}
	}
	if k.count < len(k.hashes) {
		k.hashes[k.count] = h
		k.count++
		return true
	}
	k.more = make(map[uint64]struct{}, 4*len(k.hashes))
	for _, known := range k.hashes {
		k.more[known] = struct{}{}
	}
	k.more[h] = struct{}{}
	return true
}
