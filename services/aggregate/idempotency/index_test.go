package idempotency

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// firstIndex returns the index of the first blocks of a log with many commands, and its record.
func firstIndex(t testing.TB) (*blockIndex, []byte) {
	t.Helper()
	l := newLogs(t, newMemory()).New(wallet)
	recordAll(l, 0, newestAnswers+indexBlocks*blockAnswers)
	x := newIndex(l.blocks)
	_, content := x.encode(wallet)
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return x, text
}

func TestBlockIndex_FindsTheBlocksOfAKey(t *testing.T) {
	x, text := firstIndex(t)
	parsed, err := parseIndex(text, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, parsed, cmp.AllowUnexported(blockIndex{})); diff != "" {
		t.Errorf("an index differs after it was stored: %s", diff)
	}
	for n := range indexBlocks * blockAnswers {
		blocks := slices.Collect(parsed.find(hashOf(fmt.Sprintf("key-%d", n))))
		if want := uint64(10 * (n/blockAnswers*blockAnswers + 1)); !slices.Contains(blocks, want) ||
			len(blocks) > 2 {
			t.Fatalf("key-%d may be in blocks %d, want %d", n, blocks, want)
		}
	}
	if blocks := slices.Collect(parsed.find(hashOf("another"))); len(blocks) > 0 {
		t.Errorf("an unknown key is looked up in %d", blocks)
	}
	// Equal hashes of several keys, in several blocks.
	twice := newIndex([]*block{{first: 1, hashes: []uint32{3, 7}}, {first: 5, hashes: []uint32{7, 7}}})
	if blocks := slices.Collect(twice.find(7)); !slices.Equal(blocks, []uint64{1, 5, 5}) {
		t.Errorf("a hash of three keys leads to %d", blocks)
	}
}

// FuzzParseIndex searches for records that are parsed as an index and cannot be used.
func FuzzParseIndex(f *testing.F) {
	_, text := firstIndex(f)
	f.Add(text)
	for _, text := range []string{
		`{}`,
		`{"firsts":[10],"hashes":"AAAAAA==","pages":"AA=="}`,
		`{"firsts":[10],"hashes":"AAAAAA==","pages":"AQ=="}`,
		`{"firsts":[10],"hashes":"AAA="}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := parseIndex(text, 10)
		if err != nil {
			return
		}
		l := newLogs(t, newMemory()).New(wallet)
		l.blocks = make([]*block, indexBlocks)
		x.stored(l)
		if !slices.Equal(l.indexes, []uint64{10}) || len(l.blocks) > 0 {
			t.Fatalf("an index of %d blocks replaces %d", len(x.firsts), indexBlocks-len(l.blocks))
		}
		for at, h := range x.hashes[:min(len(x.hashes), 50)] {
			if !slices.Contains(slices.Collect(x.find(h)), x.firsts[x.blocks[at]]) {
				t.Fatal("an index does not find its own hash")
			}
		}
	})
}

func TestLog_IndexesBeyondTheBoundAreForgotten(t *testing.T) {
	l := newLogs(t, newMemory()).New(wallet)
	for n := range maxIndexes + 3 {
		l.blocks = []*block{nil}
		(&blockIndex{firsts: []uint64{uint64(n)}}).stored(l)
	}
	if len(l.indexes) != maxIndexes || l.indexes[0] != 3 || l.indexes[maxIndexes-1] != maxIndexes+2 {
		t.Errorf("%d indexes from %d on are known", len(l.indexes), l.indexes[0])
	}
}
