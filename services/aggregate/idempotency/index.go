package idempotency

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
)

const (
	// indexBlocks is the number of blocks in a block index.
	indexBlocks = 64
	// maxIndexes bounds the block indexes of an aggregate: a million commands. The keys of older
	// commands are forgotten.
	maxIndexes = 256
)

// blockIndex is a block index: the hashes of the keys of consecutive stored blocks. It is stored
// itself; a log, and its snapshot, hold the sequence of its first event alone.
type blockIndex struct {
	firsts []uint64 // first sequences of the blocks
	hashes []uint32 // of all the blocks' keys, sorted
	blocks []uint8  // for each hash, the position of its block in firsts
}

// indexKey identifies a block index in the cache.
type indexKey struct {
	epoch int64 // of the journal
	key   Key
	first uint64
}

// newIndex returns the index of blocks.
func newIndex(blocks []*block) *blockIndex {
	type entry struct {
		hash  uint32
		block uint8
	}
	x := &blockIndex{}
	var entries []entry
	for n, b := range blocks {
		x.firsts = append(x.firsts, b.first)
		for _, h := range b.hashes {
			entries = append(entries, entry{h, uint8(n)})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.hash, b.hash) })
	for _, e := range entries {
		x.hashes, x.blocks = append(x.hashes, e.hash), append(x.blocks, e.block)
	}
	return x
}

// find yields the first sequences of the blocks that may have the key of a hash.
func (x *blockIndex) find(hash uint32) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		at, _ := slices.BinarySearch(x.hashes, hash)
		for ; at < len(x.hashes) && x.hashes[at] == hash; at++ {
			if !yield(x.firsts[x.blocks[at]]) {
				return
			}
		}
	}
}

// storedIndex is the JSON of a block index in the store. Its blocks are named pages, as earlier
// versions stored them.
type storedIndex struct {
	Firsts []uint64 `json:"firsts"`
	Hashes []byte   `json:"hashes"` // four bytes each, little-endian
	Blocks []byte   `json:"pages"`
}

// encode implements [record].
func (x *blockIndex) encode(key Key) (name string, content any) {
	return indexName(key, x.firsts[0]), storedIndex{Firsts: x.firsts, Hashes: encodeHashes(x.hashes), Blocks: x.blocks}
}

// stored implements [record]: the index replaces its blocks.
func (x *blockIndex) stored(l *Log) {
	l.blocks, l.indexing = slices.Delete(l.blocks, 0, len(x.firsts)), false
	if l.indexes = append(l.indexes, x.firsts[0]); len(l.indexes) > maxIndexes {
		l.indexes = slices.Delete(l.indexes, 0, len(l.indexes)-maxIndexes)
	}
}

// size estimates the bytes of memory of the index.
func (x *blockIndex) size() int64 { return int64(8*len(x.firsts) + 5*len(x.hashes) + blockBytes) }

// indexName returns the name of an index's record. It differs from all blocks' names by its number
// of answers.
func indexName(key Key, first uint64) string {
	return recordName(key, first, indexBlocks*blockAnswers)
}

// parseIndex returns a stored block index that begins at a sequence.
func parseIndex(text []byte, first uint64) (*blockIndex, error) {
	var s storedIndex
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	hashes, ok := decodeHashes(s.Hashes)
	switch {
	case !ok || len(hashes) != len(s.Blocks):
		return nil, errors.New("its hashes are invalid")
	case len(s.Firsts) != indexBlocks || s.Firsts[0] != first:
		return nil, fmt.Errorf("it is not an index of %d blocks from sequence %d on", indexBlocks, first)
	case slices.ContainsFunc(s.Blocks, func(n byte) bool { return int(n) >= len(s.Firsts) }):
		return nil, errors.New("it names a block that it does not have")
	}
	return &blockIndex{firsts: s.Firsts, hashes: hashes, blocks: s.Blocks}, nil
}

// index creates a block index of the oldest blocks once there are twice as many as it takes, so
// that the keys of recently repeated commands are found without a read.
func (l *Log) index() {
	if l.indexing || len(l.blocks) < 2*indexBlocks {
		return
	}
	oldest := l.blocks[:indexBlocks]
	if slices.ContainsFunc(oldest, func(b *block) bool { return b.answers != nil }) {
		return
	}
	x := newIndex(oldest)
	l.indexing = true
	l.pending = append(l.pending, &write{record: x})
	l.logs.indexes.GetOrAdd(indexKey{l.epoch, l.key, x.firsts[0]}, x, x.size())
}

// readIndex returns the block index that begins at a sequence, nil if it has expired.
func (l *Log) readIndex(ctx context.Context, first uint64) (*blockIndex, error) {
	cached := indexKey{l.epoch, l.key, first}
	if x, ok := l.logs.indexes.Get(cached); ok {
		return x, nil
	}
	name := indexName(l.key, first)
	text, err := l.logs.store.Get(ctx, name)
	if text == nil || err != nil {
		return nil, err
	}
	x, err := parseIndex(text, first)
	if err != nil {
		return nil, fmt.Errorf("read the idempotency record %s: %w", name, err)
	}
	return l.logs.indexes.GetOrAdd(cached, x, x.size()), nil
}
