package aggregate

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// FuzzParseSnapshot looks for a text that is accepted as a snapshot but breaks the instance.
func FuzzParseSnapshot(f *testing.F) {
	full := bytes.Repeat([]byte("AAAA"), pageAnswers*4/3)
	for _, pages := range []string{
		`[]`, `[{"first":2,"hashes":"AAAAAA==","answers":{"k":{}}}]`, `[{"first":2,"hashes":"AAAAAAA=","answers":{}}]`,
		`[{"first":2,"hashes":"","answers":null}]`, fmt.Sprintf(`[{"first":2,"hashes":%q}]`, full),
	} {
		f.Add(fmt.Appendf(nil, `{"format":%d,"model":"m","version":3,"sequence":9,"state":{"balance":1},"recent":{"r":{}},"order":["r"],"pages":%s}`, snapshotFormat, pages))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		kept, state, pages, ok := parseSnapshot(text)
		if !ok {
			return
		}
		if kept.Version < 1 || state == nil {
			t.Fatalf("%+v is taken for a snapshot", kept)
		}
		i := newInstance()
		i.newest = time.Now()
		i.pages = pages
		for n := range pageAnswers + 1 { // as an aggregate uses its blocks
			i.fall(fmt.Sprint(n), answer{FirstSequence: uint64(n)}) //nolint:gosec // small
		}
		for _, p := range i.pages {
			for _, h := range p.hashes {
				if !p.has(h) {
					t.Fatal("a page does not find its own")
				}
			}
			if back, ok := p.keep().page(); !ok || len(back.hashes) != len(p.hashes) {
				t.Fatalf("a page of %d answers is not what is kept of it", len(p.hashes))
			}
		}
	})
}
