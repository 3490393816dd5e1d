package aggregate

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/services/aggregate/idempotency"
)

// FuzzParseSnapshot searches for texts that are parsed as a snapshot and cannot be used.
func FuzzParseSnapshot(f *testing.F) {
	for _, pages := range []string{
		`[]`, `[{"first":2,"hashes":"AAAAAA==","answers":{"k":{}}}]`, `[{"first":2,"hashes":"","answers":null}]`,
	} {
		f.Add(
			fmt.Appendf(
				nil,
				`{"format":%d,"model":"m","version":3,"sequence":9,"state":{"balance":1},"recent":{"r":{}},"order":["r"],"pages":%s}`,
				snapshotFormat, pages,
			),
		)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, state, ok := parseSnapshot(text)
		if ok && (parsed.Version < 1 || state == nil) {
			t.Fatalf("%+v parsed as a snapshot, want an error", parsed)
		}
	})
}

// TestSnapshot_StoredByEarlierVersions restores and encodes a snapshot that the first version stored.
func TestSnapshot_StoredByEarlierVersions(t *testing.T) {
	text, err := os.ReadFile("testdata/snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	stored, state, ok := parseSnapshot(text)
	if !ok || state["owner"] != "ada" || stored.Version != 13018 || stored.Model == "" || stored.Epoch == 0 {
		t.Fatalf("%v: %+v of version %d", ok, state, stored.Version)
	}
	i := newInstance(idempotency.NewLogs(nil, 1<<20).New(idempotency.Key{}))
	if err := i.log.Restore(stored.Snapshot); err != nil {
		t.Fatal(err)
	}
	known, ok, err := i.log.Find(t.Context(), "d-12889")
	if want := (idempotency.Answer{
		Fingerprint:   "4380de10bf8b7c54d08caa1dd85f3a76",
		FirstSequence: 12891,
		Events:        1,
	}); err != nil || !ok || known != want {
		t.Errorf("%v, %v, %v; want %v", known, ok, err, want)
	}
	i.model, i.epoch, i.version = stored.Model, stored.Epoch, stored.Version
	i.sequence, i.state = stored.Sequence, state
	encoded, err := i.encodeSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(encoded)); diff != "" {
		t.Errorf("the snapshot differs: %.400s", diff)
	}
}
