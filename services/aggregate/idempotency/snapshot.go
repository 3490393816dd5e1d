package idempotency

import "errors"

// ErrInvalid is returned for a snapshot that is not one of a log.
var ErrInvalid = errors.New("the snapshot of the idempotency log is invalid")

// Snapshot is the content of a log, encoded as JSON. In the JSON, blocks are
// named pages and block indexes chapters, as earlier versions stored them.
type Snapshot struct {
	Recent map[string]Answer `json:"recent,omitempty"`
	// Order has the keys of Recent, the oldest first.
	Order []string `json:"order,omitempty"`
	// Blocks has the blocks, the oldest first.
	Blocks []BlockSnapshot `json:"pages,omitempty"`
	// Indexes has the first sequences of the block indexes, the oldest first.
	Indexes []uint64 `json:"chapters,omitempty"`
}

// BlockSnapshot is a block of a [Snapshot].
type BlockSnapshot struct {
	First  uint64 `json:"first"`
	Hashes []byte `json:"hashes"` // four bytes each, little-endian
	// Answers has the answers of a block that is not known to be stored.
	Answers map[string]Answer `json:"answers,omitempty"`
}

// Snapshot returns the content of the log. It shares memory with the log: encode it before the log
// changes.
func (l *Log) Snapshot() Snapshot {
	s := Snapshot{Recent: map[string]Answer{}, Order: l.newest.Keys(), Indexes: l.indexes}
	for _, key := range s.Order {
		s.Recent[key], _ = l.newest.Peek(key)
	}
	for _, b := range l.blocks {
		s.Blocks = append(s.Blocks, b.snapshot())
	}
	return s
}

// Restore sets the content of an empty log. Full blocks with answers are pending. Error:
// [ErrInvalid]; the log stays empty.
func (l *Log) Restore(s Snapshot) error {
	blocks := make([]*block, len(s.Blocks))
	for n, stored := range s.Blocks {
		var ok bool
		if blocks[n], ok = stored.block(); !ok {
			return ErrInvalid
		}
	}
	for _, key := range s.Order {
		l.newest.Add(key, s.Recent[key])
	}
	l.blocks, l.indexes = blocks, s.Indexes
	for _, b := range blocks {
		if b.full() && b.answers != nil {
			l.pending = append(l.pending, &write{record: b})
		}
	}
	return nil
}

func (b *block) snapshot() BlockSnapshot {
	return BlockSnapshot{First: b.first, Hashes: encodeHashes(b.hashes), Answers: b.answers}
}

// block returns the block, and false if the snapshot cannot be one of a block.
func (s BlockSnapshot) block() (*block, bool) {
	b := &block{first: s.First, answers: s.Answers}
	var ok bool
	if b.hashes, ok = decodeHashes(s.Hashes); !ok {
		return nil, false
	}
	return b, b.full() || b.answers != nil // a block with space is not stored
}
