package aggregate

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// chapterOf binds the first pages of an aggregate of many commands.
func chapterOf(t testing.TB) (*chapter, []byte) {
	t.Helper()
	c := bind(folded(recentCommands + chapterPages*pageAnswers).pages)
	_, content := c.record(aggregateKey{})
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return c, text
}

func TestAChapterFindsThePagesOfAKey(t *testing.T) {
	c, text := chapterOf(t)
	parsed, err := parseChapter(text, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, parsed, cmp.AllowUnexported(chapter{})); diff != "" {
		t.Errorf("a chapter is another after it was kept: %s", diff)
	}
	for n := range chapterPages * pageAnswers {
		pages := slices.Collect(parsed.find(hashOf(fmt.Sprintf("key-%d", n))))
		if want := uint64(10 * (n/pageAnswers*pageAnswers + 1)); !slices.Contains(pages, want) || len(pages) > 2 {
			t.Fatalf("key-%d may be in pages %d, want %d", n, pages, want)
		}
	}
	if pages := slices.Collect(parsed.find(hashOf("another"))); len(pages) > 0 {
		t.Errorf("a key that it does not have is looked for in %d", pages)
	}
	// Two keys of one hash, in different pages.
	twice := bind([]*page{{first: 1, hashes: []uint32{3, 7}}, {first: 5, hashes: []uint32{7, 7}}})
	if pages := slices.Collect(twice.find(7)); !slices.Equal(pages, []uint64{1, 5, 5}) {
		t.Errorf("a hash of three keys leads to %d", pages)
	}
}

// FuzzParseChapter finds a record that is taken for a chapter and cannot be worked with.
func FuzzParseChapter(f *testing.F) {
	_, text := chapterOf(f)
	f.Add(text)
	for _, text := range []string{`{}`, `{"firsts":[10],"hashes":"AAAAAA==","pages":"AA=="}`, `{"firsts":[10],"hashes":"AAAAAA==","pages":"AQ=="}`, `{"firsts":[10],"hashes":"AAA="}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseChapter(text, 10)
		if err != nil {
			return
		}
		i := newInstance()
		i.pages = make([]*page, chapterPages)
		c.kept(i)
		if !slices.Equal(i.chapters, []uint64{10}) || len(i.pages) > 0 {
			t.Fatalf("a chapter of %d pages takes the place of %d", len(c.firsts), chapterPages-len(i.pages))
		}
		for at, h := range c.hashes[:min(len(c.hashes), 50)] {
			if !slices.Contains(slices.Collect(c.find(h)), c.firsts[c.pages[at]]) {
				t.Fatal("a chapter does not find its own")
			}
		}
	})
}

func TestChaptersBeyondTheBoundAreForgotten(t *testing.T) {
	i := newInstance()
	for n := range maxChapters + 3 {
		i.pages = []*page{nil}
		(&chapter{firsts: []uint64{uint64(n)}}).kept(i) //nolint:gosec // small
	}
	if len(i.chapters) != maxChapters || i.chapters[0] != 3 || i.chapters[maxChapters-1] != maxChapters+2 {
		t.Errorf("%d chapters from %d on are known", len(i.chapters), i.chapters[0])
	}
}
