package aggregate

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
	// chapterPages is how many pages' hashes are kept together.
	chapterPages = 64
	// maxChapters bounds the chapters that an aggregate knows, a million commands; the
	// keys of older ones are forgotten.
	maxChapters = 256
)

// chapter is the hashes of an aggregate's pages, one after the other, that are all in
// the bucket, where it is itself: an aggregate, and its snapshot, has its number alone.
type chapter struct {
	firsts []uint64 // of the pages
	hashes []uint32 // of all the pages' keys, sorted
	pages  []uint8  // for each hash, the place of its page in firsts
}

// chapterRef names a chapter.
type chapterRef struct {
	epoch int64 // of the journal
	key   aggregateKey
	first uint64
}

// bind makes a chapter of pages.
func bind(pages []*page) *chapter {
	type entry struct {
		hash uint32
		page uint8
	}
	c := &chapter{}
	var entries []entry
	for n, p := range pages {
		c.firsts = append(c.firsts, p.first)
		for _, h := range p.hashes {
			entries = append(entries, entry{h, uint8(n)}) //nolint:gosec // chapterPages at most
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.hash, b.hash) })
	for _, e := range entries {
		c.hashes, c.pages = append(c.hashes, e.hash), append(c.pages, e.page)
	}
	return c
}

// find returns the pages, by the sequences that they begin with, which may have a key.
func (c *chapter) find(hash uint32) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		at, _ := slices.BinarySearch(c.hashes, hash)
		for ; at < len(c.hashes) && c.hashes[at] == hash; at++ {
			if !yield(c.firsts[c.pages[at]]) {
				return
			}
		}
	}
}

func (c *chapter) record(key aggregateKey) (name string, content any) {
	return chapterName(key, c.firsts[0]), keptChapter{Firsts: c.firsts, Hashes: encodeHashes(c.hashes), Pages: c.pages}
}

// kept takes the place of the chapter's pages.
func (c *chapter) kept(i *instance) {
	i.pages, i.binding = slices.Delete(i.pages, 0, len(c.firsts)), false
	if i.chapters = append(i.chapters, c.firsts[0]); len(i.chapters) > maxChapters {
		i.chapters = slices.Delete(i.chapters, 0, len(i.chapters)-maxChapters)
	}
}

// resident estimates the bytes of memory that the chapter takes.
func (c *chapter) resident() int64 { return int64(8*len(c.firsts) + 5*len(c.hashes) + pageBytes) }

// chapterName cannot be a page's: it has more answers.
func chapterName(key aggregateKey, first uint64) string {
	return recordName(key, first, chapterPages*pageAnswers)
}

// keptChapter is a chapter in the bucket.
type keptChapter struct {
	Firsts []uint64 `json:"firsts"`
	Hashes []byte   `json:"hashes"` // four bytes each, little-endian
	Pages  []byte   `json:"pages"`
}

// parseChapter returns a chapter that begins at first.
func parseChapter(text []byte, first uint64) (*chapter, error) {
	var k keptChapter
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	hashes, ok := decodeHashes(k.Hashes)
	switch {
	case !ok || len(hashes) != len(k.Pages):
		return nil, errors.New("its hashes are none")
	case len(k.Firsts) != chapterPages || k.Firsts[0] != first:
		return nil, fmt.Errorf("it is not of %d pages from %d on", chapterPages, first)
	case slices.ContainsFunc(k.Pages, func(n byte) bool { return int(n) >= len(k.Firsts) }):
		return nil, errors.New("it names a page that it does not have")
	}
	return &chapter{firsts: k.Firsts, hashes: hashes, pages: k.Pages}, nil
}

// chapter returns one of an aggregate's chapters, nil when its time is over.
func (s *Service) chapter(ctx context.Context, key aggregateKey, first uint64) (*chapter, error) {
	ref := chapterRef{s.journal.Epoch(), key, first}
	if c, ok := s.chapters.get(ref); ok {
		return c, nil
	}
	name := chapterName(key, first)
	text, err := s.read(ctx, name)
	if text == nil || err != nil {
		return nil, err
	}
	c, err := parseChapter(text, first)
	if err != nil {
		return nil, fmt.Errorf("read the idempotency record %s: %w", name, err)
	}
	return s.chapters.getOrAdd(ref, c, c.resident()), nil
}
