package aggregate

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// pageAnswers is how many answers are kept together. A record for each would be a
// second synced write for each command.
const pageAnswers = 64

// page is answers that fell out of an aggregate's recent ones, one after the other. It
// has them until they are known to be in the bucket; then it knows their keys' hashes
// alone, by which a key is known to be new without a read.
type page struct {
	first   uint64            // sequence of the first answer's first event
	hashes  []uint32          // of the keys, sorted
	answers map[string]answer // by key; nil once they are in the bucket
}

func hashOf(key string) uint32 { return uint32(xxhash.Sum64String(key)) }

func (p *page) full() bool { return len(p.hashes) >= pageAnswers }

func (p *page) add(key string, known answer) {
	h := hashOf(key)
	at, _ := slices.BinarySearch(p.hashes, h)
	p.hashes = slices.Insert(p.hashes, at, h)
	p.answers[key] = known
}

// has says whether the key may be the page's; if not, it is not.
func (p *page) has(hash uint32) bool {
	_, found := slices.BinarySearch(p.hashes, hash)
	return found
}

func (p *page) record(key aggregateKey) (name string, content any) {
	return recordName(key, p.first, len(p.hashes)), p.answers
}

func (p *page) kept(*instance) { p.answers = nil }

// keptPage is a page in a snapshot.
type keptPage struct {
	First  uint64 `json:"first"`
	Hashes []byte `json:"hashes"` // four bytes each, little-endian
	// Answers are those of a page that was not known to be in the bucket yet.
	Answers map[string]answer `json:"answers,omitempty"`
}

func (p *page) keep() keptPage {
	return keptPage{First: p.first, Hashes: encodeHashes(p.hashes), Answers: p.answers}
}

// page returns the page, false if it cannot have been one.
func (k keptPage) page() (*page, bool) {
	p := &page{first: k.First, answers: k.Answers}
	var ok bool
	if p.hashes, ok = decodeHashes(k.Hashes); !ok {
		return nil, false
	}
	// What has room is not in the bucket.
	return p, p.full() || p.answers != nil
}

func encodeHashes(hashes []uint32) []byte {
	encoded := make([]byte, 0, 4*len(hashes))
	for _, h := range hashes {
		encoded = binary.LittleEndian.AppendUint32(encoded, h)
	}
	return encoded
}

// decodeHashes returns hashes, false if they are cut short or out of order: keys would
// not be found in them.
func decodeHashes(encoded []byte) ([]uint32, bool) {
	if len(encoded)%4 != 0 {
		return nil, false
	}
	hashes := make([]uint32, 0, max(len(encoded)/4, pageAnswers))
	for four := range slices.Chunk(encoded, 4) {
		hashes = append(hashes, binary.LittleEndian.Uint32(four))
	}
	return hashes, slices.IsSorted(hashes)
}
