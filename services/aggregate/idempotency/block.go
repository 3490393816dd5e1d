package idempotency

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// blockAnswers is the number of answers in a block. One record per answer would be a second synced
// write per command.
const blockAnswers = 64

// block is an answer block: consecutive answers that are no longer among an aggregate's newest. It holds
// the answers until they are stored. After that it holds the hashes of their keys, by which most new keys
// are recognized without a read.
type block struct {
	first   uint64            // sequence of the first answer's first event
	hashes  []uint32          // of the keys, sorted
	answers map[string]Answer // by key; nil once they are stored
}

func newBlock(first uint64) *block {
	return &block{
		first:   first,
		hashes:  make([]uint32, 0, blockAnswers),
		answers: map[string]Answer{},
	}
}

func hashOf(key string) uint32 { return uint32(xxhash.Sum64String(key)) }

func (b *block) full() bool { return len(b.hashes) >= blockAnswers }

func (b *block) add(key string, known Answer) {
	h := hashOf(key)
	at, _ := slices.BinarySearch(b.hashes, h)
	b.hashes = slices.Insert(b.hashes, at, h)
	b.answers[key] = known
}

// has reports whether the block may have the key of a hash.
func (b *block) has(hash uint32) bool {
	_, found := slices.BinarySearch(b.hashes, hash)
	return found
}

// encode implements [record].
func (b *block) encode(key Key) (name string, content any) {
	return recordName(key, b.first, len(b.hashes)), b.answers
}

// stored implements [record].
func (b *block) stored(*Log) { b.answers = nil }

// readBlock returns the answer of a key from the stored block that begins at a sequence.
func (l *Log) readBlock(ctx context.Context, first uint64, key string) (known Answer, ok bool, err error) {
	name := recordName(l.key, first, blockAnswers)
	text, err := l.logs.store.Get(ctx, name)
	if text == nil || err != nil {
		return Answer{}, false, err
	}
	var answers map[string]Answer
	if err := json.Unmarshal(text, &answers); err != nil {
		return Answer{}, false, fmt.Errorf("read the idempotency record %s: %w", name, err)
	}
	known, ok = answers[key]
	return known, ok, nil
}

func encodeHashes(hashes []uint32) []byte {
	encoded := make([]byte, 0, 4*len(hashes))
	for _, h := range hashes {
		encoded = binary.LittleEndian.AppendUint32(encoded, h)
	}
	return encoded
}

// decodeHashes returns hashes, and false if they are truncated or unsorted: a search would miss
// keys.
func decodeHashes(encoded []byte) ([]uint32, bool) {
	if len(encoded)%4 != 0 {
		return nil, false
	}
	hashes := make([]uint32, 0, max(len(encoded)/4, blockAnswers))
	for four := range slices.Chunk(encoded, 4) {
		hashes = append(hashes, binary.LittleEndian.Uint32(four))
	}
	return hashes, slices.IsSorted(hashes)
}
